"""A servable in the running server under a name of its own, for as long as an evaluation asks it.

The name begins with an underscore, as no stable name and no version's name can. What is left of such a model after a
crash is found by its name, and is nobody's if the lock under which it is asked can be had.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tasks.contracts.artifacts import ServableModel
from tasks.contracts.asking import Ask, EvaluationServer, ReferenceLikelihood, ServedAnswer
from tasks.contracts.config import ServingSection
from tasks.contracts.errors import LlmRetrainError, ServingError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import canonical_json
from tasks.contracts.locks import held_lock, lock_if_free
from tasks.contracts.store import read_manifest
from tasks.serving.repository import evaluated_name, is_evaluated_name, publish, remove
from tasks.serving.routing import read_routing
from tasks.serving.serving_environment import find_serving_environment, installed_versions
from tasks.serving.triton_client import (
    AnswerTimedOut,
    RequestRefused,
    TritonAddress,
    infer,
    is_model_ready,
    load_model,
    outputs_of,
    repository_index,
    unload_model,
    wait_ready,
)
from tasks.serving.tritonserver import ensure_triton

log = logging.getLogger("llm_retrain.serving")

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0


def evaluation_server(home: Home, serving: ServingSection, evaluation: EvaluationSection) -> EvaluationServer:
    """Return the Triton of this home as the evaluation asks it; it is started when a model is to be asked.

    Raises:
        EnvironmentProblem: Triton cannot run here.
    """

    def open_model(servable: ServableModel) -> AbstractContextManager[Ask]:
        return loaded_for_evaluation(servable, home, serving, evaluation.answer_timeout_seconds)

    software = canonical_json(installed_versions(find_serving_environment()))
    return EvaluationServer(open_model, software, evaluation.concurrency)


@contextmanager
def loaded_for_evaluation(
    servable: ServableModel, home: Home, serving: ServingSection, timeout_seconds: float
) -> Iterator[Ask]:
    """Hold a servable in the server while the block runs, and yield what asks it.

    The champion, if it has the very same files, is asked where it is. Anything else is published and loaded, one at a
    time, and is unloaded and removed however the block ends.

    Raises:
        EnvironmentProblem: Triton cannot run here, or a port is in use.
        ServingError: the server does not start, or the model does not load.
        StoreError: it cannot be published.
    """
    address = ensure_triton(home, serving)
    champion = _champion_with_files_of(servable, home, serving, address)
    if champion is not None:
        log.info("The servable is asked as %s, which is loaded", champion)
        yield _asker(address, champion, timeout_seconds)
        return
    name = evaluated_name(servable.digest)
    with held_lock(_lock_file(home)):
        _take_out(_left_over(home), address, home, serving)
        try:
            publish(servable.model_directory, home.triton_repository, home.triton_incoming, name)
            load_model(address, name, serving.load_timeout_seconds)
            wait_ready(address, name, serving.load_timeout_seconds)
            yield _asker(address, name, timeout_seconds)
        finally:
            _take_out({name}, address, home, serving)


def remove_left_over(home: Home, address: TritonAddress | None, serving: ServingSection) -> None:
    """Unload and remove what an evaluation that was killed left behind; what is being asked now stays.

    What does not go is said in the log, and is tried again the next time: no promotion waits for that.
    """
    with lock_if_free(_lock_file(home)) as is_free:
        if is_free:
            _take_out(_left_over(home), address, home, serving)


def _left_over(home: Home) -> set[str]:
    """Return the names of what is there for an evaluation; Triton's index has none whose directory is gone."""
    return {path.name for path in home.triton_repository.glob("*") if is_evaluated_name(path.name)}


def _loaded(address: TritonAddress) -> set[str]:
    """Return what the server holds; nothing if it does not answer, for then it holds nothing that can be unloaded."""
    try:
        index = repository_index(address)
    except ServingError as error:
        log.warning("What the server holds is not known: %s", error)
        return set()
    return {name for name, line in index.items() if line["state"] in ("READY", "LOADING")}


def _take_out(names: set[str], address: TritonAddress | None, home: Home, serving: ServingSection) -> None:
    """Unload and remove models; what fails is logged, so that it hides no error that led here.

    What does not unload keeps its directory: by that it is found the next time.
    """
    for name in sorted(names):
        try:
            if address is not None and name in _loaded(address):
                unload_model(address, name, serving.load_timeout_seconds)
            remove(home.triton_repository, home.triton_incoming, name)
        except (LlmRetrainError, OSError) as error:
            log.warning("%s, which an evaluation asked, was not taken out of the server: %s", name, error)


def _champion_with_files_of(
    servable: ServableModel, home: Home, serving: ServingSection, address: TritonAddress
) -> str | None:
    """Return the champion's name in Triton if it is loaded and has the very files of the servable."""
    name = read_routing(home.routing_file(serving.model_name)).champion
    if name is None or not is_model_ready(address, name):
        return None
    try:
        published = read_manifest(home.triton_repository / name)["files"]
        own = read_manifest(servable.path)["files"]
    except (OSError, ValueError, KeyError):
        return None
    inside = f"{servable.model_directory.name}/"
    mine = {path.removeprefix(inside): facts for path, facts in own.items() if path.startswith(inside)}
    return name if mine == published else None


def _asker(address: TritonAddress, model: str, timeout_seconds: float) -> Ask:
    says = outputs_of(address, model)
    if "reference_nats" not in says:
        log.warning("%s was built before models said how likely a reference is: perplexity will be left out", model)

    def ask(messages: list[dict[str, str]], reference: str | None) -> ServedAnswer:
        fields = {"messages": json.dumps(messages)}
        if reference is not None and "reference_nats" in says:
            fields["reference"] = reference
        said = _repeated(lambda: infer(address, model, fields, timeout_seconds))
        likelihood = None
        if "reference_nats" in said:
            likelihood = ReferenceLikelihood(float(said["reference_nats"]), int(said["reference_tokens"]))
        new_tokens = int(said["new_tokens"]) if "new_tokens" in said else None
        return ServedAnswer(said["text_output"], new_tokens, said["finish_reason"], likelihood)

    return ask


def _repeated(once: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Ask again what was not answered: decoding is greedy, so the answer is the same; not what would fail again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return once()
        except (RequestRefused, AnswerTimedOut):
            raise
        except ServingError as error:
            if attempt == _ATTEMPTS:
                raise
            log.info("Asked again in %g s: %s", _PAUSE_SECONDS, error)
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _lock_file(home: Home) -> Path:
    return home.triton_incoming / ".evaluated.lock"
