"""Answers of a servable model to the evaluation rows, by the very engine code that its directory will serve with.

Kept by digest: a champion that did not change is not asked the same questions twice.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import DatasetRef, Predictions, ServableModel
from tasks.contracts.asking import EvaluationServer
from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.contracts.worker import Listener, ignore_event, run_worker
from tasks.evaluation.generation_server import ask_server
from tasks.evaluation.side_by_side import not_learned

log = logging.getLogger("llm_retrain.evaluation")

_RUNTIMES = {"onnx": ("onnxruntime", "numpy"), "transformers": ("torch", "transformers")}
PREDICTIONS = "predictions.jsonl"
_FACTS = ("rows", "seconds", "servable_bytes")
_MEMORY_HINT = "free memory, lower serving.onnx_precision or choose a smaller base_model.source"


def generate_predictions(
    servable: ServableModel,
    dataset: DatasetRef,
    asked_again: Sequence[int],
    store: Store,
    log_path: Path,
    listener: Listener = ignore_event,
    server: EvaluationServer | None = None,
    max_new_tokens: int | None = None,
) -> Predictions:
    """Return the model's greedy answers to `eval.jsonl`, generating them only if the store has none.

    Args:
        servable: the model.
        dataset: what it is asked.
        asked_again: places of the rows that are asked a second time, alone.
        store: keeps the answers.
        log_path: the process's log.
        listener: called with each event.
        server: what holds the model while it is asked; without one the engine runs in a process of its own.
        max_new_tokens: the longest answer of an engine in a process; as the model is served if there is none.

    Raises:
        EvaluationError: the engine or the server failed, or answered another number of rows than it was asked.
        ServingError: the server does not load the model.
    """
    inputs = {
        "servable": servable.digest,
        "eval_rows": dataset.eval_digest,
        "asked_again": list(asked_again),
        "max_new_tokens": max_new_tokens,
        "code": code_digest("tasks/evaluation/generation.py", "tasks/evaluation/generation_process.py"),
        "libraries": library_versions("tokenizers", "jinja2", *_RUNTIMES[servable.engine]),
    }
    if server is not None:
        inputs["server"] = {
            "software": server.software,
            "code": code_digest("tasks/evaluation/generation_server.py"),
        }
    questions = dataset.path / "eval.jsonl"

    def write(out: Path) -> dict[str, Any]:
        started = time.monotonic()
        if server is not None:
            asked = ask_server(server, servable, list(read_jsonl(questions)), asked_again, listener)
            answered = write_jsonl(out / PREDICTIONS, asked)
        else:
            limits = {"asked_again": list(asked_again), "max_new_tokens": max_new_tokens}
            answered = _ask_in_process(servable, questions, out / PREDICTIONS, limits, log_path, listener)
        if answered != dataset.eval_rows:
            raise EvaluationError(f"the engine answered {answered} of {dataset.eval_rows} evaluation rows")
        size = sum(path.stat().st_size for path in servable.model_directory.rglob("*") if path.is_file())
        return {"rows": answered, "seconds": time.monotonic() - started, "servable_bytes": size}

    entry = store.produce("predictions", inputs, write)
    return Predictions(path=entry.path, digest=entry.digest, **{name: entry.facts[name] for name in _FACTS})


def places_asked_again(dataset: DatasetRef, most: int, learned: Iterable[Path]) -> list[int]:
    """Return the places of the first rows that can say how much a model's answers vary: of those that are compared.

    Args:
        dataset: what is asked.
        most: how many.
        learned: files of rows that the champion was trained on.

    Raises:
        EvaluationError: the champion was trained on all rows, or a file cannot be read.
    """
    prompts = [row["messages"][:-1] for row in read_jsonl(dataset.path / "eval.jsonl")]
    return not_learned(prompts, learned)[:most]


def _ask_in_process(
    servable: ServableModel,
    questions: Path,
    out: Path,
    limits: dict[str, Any],
    log_path: Path,
    listener: Listener,
) -> int:
    """Have an engine in a process of its own answer a file of rows, and return how many it answered."""
    version = str(servable.model_directory / "1")
    spec = {"version_directory": version, "rows": str(questions), "out": str(out), **limits}
    process = "tasks.evaluation.generation_process"
    events = run_worker(process, spec, log_path, EvaluationError, listener, _MEMORY_HINT)
    return sum(event["event"] == "answer" for event in events)
