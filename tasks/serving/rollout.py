"""Roll-out of one version: published, loaded, asked what it was evaluated on, and only then switched to.

Each step does one thing; the flow keeps the way back of each until the end.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import ServingSection
from tasks.contracts.engine import GOLDEN_REQUEST_ID, load_engine
from tasks.contracts.errors import LlmRetrainError, RolloutError, ServingError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import damage_of, read_manifest
from tasks.serving.repository import publish, remove
from tasks.serving.routing import Routing, read_routing, write_routing
from tasks.serving.triton_client import TritonAddress, ask, load_model, repository_index, unload_model, wait_ready

log = logging.getLogger("llm_retrain.serving")


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt of the evaluation and the answer that was evaluated."""

    messages: list[dict[str, str]]
    answer: str


def triton_model_name(serving: ServingSection, version: int) -> str:
    """Return the name under which a version lives in Triton."""
    return f"{serving.model_name}-v{version}"


def golden_prompts(version: RegisteredVersion, count: int) -> list[GoldenPrompt]:
    """Return the `count` evaluated prompts with the shortest text, which are the quickest to ask again.

    Raises:
        RolloutError: the version's stored predictions are missing, damaged, or another servable's.
    """
    predictions = version.predictions_path
    refusal = f"the stored predictions at {predictions} cannot vouch for version {version.version}"
    damage = damage_of(predictions)
    if damage:
        raise RolloutError(f"{refusal}: {damage}")
    answered_by = read_manifest(predictions).get("inputs", {}).get("servable")
    if answered_by != version.servable_digest:
        raise RolloutError(
            f"{refusal}: they are answers of servable {str(answered_by)[:12]}, and it was registered with "
            f"{version.servable_digest[:12]}"
        )
    rows = list(read_jsonl(predictions / "predictions.jsonl"))
    rows.sort(key=lambda row: (sum(len(message["content"]) for message in row["messages"]), row["id"]))
    return [GoldenPrompt(row["messages"], row["answer"]) for row in rows[:count]]


def publish_version(version: RegisteredVersion, serving: ServingSection, home: Home) -> Path:
    """Copy the evaluated directory into the model repository under the version's own name.

    Raises:
        RolloutError: the servable in the store is not the one that was registered.
    """
    path = version.servable_path
    damage = damage_of(path)
    if damage:
        raise RolloutError(f"the servable of version {version.version} at {path} is damaged: {damage}")
    digest = read_manifest(path)["digest"]
    if digest != version.servable_digest:
        raise RolloutError(
            f"the servable of version {version.version} at {path} has the digest {digest[:12]}, and it was registered "
            f"with {version.servable_digest[:12]}"
        )
    name = triton_model_name(serving, version.version)
    return publish(path / "model", home.triton_repository, home.triton_incoming, name)


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
        answered = ask(address, stable_name, messages, request_id=GOLDEN_REQUEST_ID)
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

    def answer(messages: list[dict[str, str]]) -> str:
        try:
            return str(engine.generate(messages).text)
        except Exception as error:  # as above
            raise ServingError(f"{type(error).__name__}: {error}") from error

    return answer


def route_to(home: Home, serving: ServingSection, version: int | None) -> None:
    """Let the stable name answer with `version` from the next request on; None: with nothing.

    Raises:
        ServingError: the routing table cannot be read or written; the old one stands.
    """
    path = home.routing_file(serving.model_name)
    write_routing(
        path,
        Routing(
            champion=None if version is None else triton_model_name(serving, version),
            version=version,
            generation=read_routing(path).generation + 1,
            changed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        ),
    )


def retire_versions(address: TritonAddress | None, serving: ServingSection, home: Home, kept: Iterable[int]) -> str:
    """Unload all versions but those kept, and take them out of the repository; the store still has them.

    Args:
        address: the server; None where Triton cannot run.
        serving: whose versions.
        home: the state directory.
        kept: the champion, and the version before, which stays loaded so that going back is quick.

    Returns:
        What could not be tidied up, in one sentence, or the empty string: the roll-out is done, and this is no reason
        to call it failed.
    """
    kept_names = {triton_model_name(serving, version) for version in kept}
    version_name = re.compile(rf"{re.escape(serving.model_name)}-v\d+")
    try:
        index = repository_index(address) if address else {}
        loaded = {name for name, line in index.items() if line["state"] == "READY"}
        published = {path.name for path in home.triton_repository.iterdir()}
        for name in sorted(loaded | published):
            if name in kept_names or not version_name.fullmatch(name):
                continue
            if address is not None and name in loaded:
                unload_version(address, name, serving)
            remove(home.triton_repository, home.triton_incoming, name)
            log.info("%s was retired", name)
    except (LlmRetrainError, OSError) as error:
        log.warning("Versions that do not answer any more could not be retired: %s", error)
        return f"versions that do not answer any more could not be retired: {error}"
    return ""
