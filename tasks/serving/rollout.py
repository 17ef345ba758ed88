"""Roll-out of one version: published, loaded, asked what it was evaluated on, and only then switched to.

Every step that changes something says how to undo it; the flow keeps those undo steps until the end.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import ServingSection
from tasks.contracts.engine import load_engine
from tasks.contracts.errors import RolloutError, ServingError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import damage_of
from tasks.serving.repository import publish
from tasks.serving.routing import Routing, read_routing, write_routing
from tasks.serving.triton_client import TritonAddress, ask, load_model, unload_model, wait_ready

log = logging.getLogger("llm_retrain.serving")


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt of the evaluation and the answer that was evaluated."""

    messages: list[dict[str, str]]
    answer: str


def triton_model_name(serving: ServingSection, version: int) -> str:
    """Return the name under which a version lives in Triton."""
    return f"{serving.model_name}-v{version}"


def golden_prompts(predictions: Path, count: int) -> list[GoldenPrompt]:
    """Return the `count` evaluated prompts with the shortest text, which are the quickest to ask again.

    Raises:
        RolloutError: the version's stored predictions are missing or damaged.
    """
    damage = damage_of(predictions)
    if damage:
        raise RolloutError(f"the stored predictions at {predictions} cannot vouch for this version: {damage}")
    rows = list(read_jsonl(predictions / "predictions.jsonl"))
    rows.sort(key=lambda row: (sum(len(message["content"]) for message in row["messages"]), row["id"]))
    return [GoldenPrompt(row["messages"], row["answer"]) for row in rows[:count]]


def publish_version(version: RegisteredVersion, serving: ServingSection, home: Home) -> Path:
    """Copy the evaluated directory into the model repository under the version's own name.

    Raises:
        RolloutError: the servable in the store is not the one that was registered.
    """
    damage = damage_of(version.servable_path)
    if damage:
        raise RolloutError(f"the servable of version {version.version} at {version.servable_path} is damaged: {damage}")
    name = triton_model_name(serving, version.version)
    return publish(version.servable_path / "model", home.triton_repository, home.triton_incoming, name)


def load_version(address: TritonAddress, name: str, serving: ServingSection) -> None:
    """Load a published version and wait until it is ready.

    Raises:
        RolloutError: it does not load; Triton's reason is in the text.
    """
    try:
        load_model(address, name, serving.load_timeout_seconds)
        wait_ready(address, name, serving.load_timeout_seconds)
    except ServingError as error:
        raise RolloutError(f"{name} was not rolled out: {error}") from error


def unload_version(address: TritonAddress, name: str, serving: ServingSection) -> None:
    """Unload a version that does not answer for the stable name any more."""
    unload_model(address, name, serving.load_timeout_seconds)


def check_golden_prompts(
    prompts: list[GoldenPrompt], model: str, answer: Callable[[list[dict[str, str]]], str]
) -> None:
    """Ask every golden prompt and compare with the evaluated answer, letter by letter (decoding is greedy).

    Raises:
        RolloutError: there is none, one is not answered, or one is answered differently.
    """
    if not prompts:
        raise RolloutError(f"{model} was not rolled out: there is no golden prompt to compare with")
    for number, prompt in enumerate(prompts, start=1):
        try:
            answered = answer(prompt.messages)
        except ServingError as error:
            raise RolloutError(f"{model} was not rolled out: golden prompt {number}: {error}") from error
        if answered != prompt.answer:
            raise RolloutError(
                f"{model} was not rolled out: golden prompt {number} of {len(prompts)} was answered "
                f"{answered[:120]!r}; evaluated was {prompt.answer[:120]!r}"
            )


def ask_directly(address: TritonAddress, model: str) -> Callable[[list[dict[str, str]]], str]:
    """Return a function that asks one Triton model."""
    return lambda messages: ask(address, model, messages)["text"]


def ask_through(address: TritonAddress, stable_name: str, expected: str) -> Callable[[list[dict[str, str]]], str]:
    """Return a function that asks the stable name and insists on which model answers behind it."""

    def answer(messages: list[dict[str, str]]) -> str:
        answered = ask(address, stable_name, messages)
        if answered["served_by"] != expected:
            raise RolloutError(f"{stable_name} is answered by {answered['served_by']}, not by {expected}")
        return answered["text"]

    return answer


def ask_in_process(directory: Path) -> Callable[[list[dict[str, str]]], str]:
    """Return a function that asks the engine of a published directory without Triton.

    Raises:
        RolloutError: the engine does not start.
    """
    try:
        engine = load_engine(directory / "1")
    except Exception as error:  # whatever an engine's libraries raise, the directory cannot serve
        raise RolloutError(f"{directory.name} was not rolled out: its engine does not start: {error}") from error
    return lambda messages: str(engine.generate(messages).text)


def switch_routing(home: Home, serving: ServingSection, version: int, undo: ExitStack) -> None:
    """Let the stable name answer with `version` from the next request on; `undo` gets the way back."""
    path = home.routing_file(serving.model_name)
    before = read_routing(path)
    write_routing(
        path,
        Routing(
            champion=triton_model_name(serving, version),
            version=version,
            generation=before.generation + 1,
            changed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        ),
    )
    undo.callback(write_routing, path, before)
