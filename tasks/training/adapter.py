"""Trains an adapter: starts the training process, follows it, and keeps what it made."""

import logging
import time
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef
from tasks.contracts.config import TrainingSection
from tasks.contracts.engine import TEMPLATE_DATE
from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import digest_of, digest_of_file, read_jsonl, write_jsonl
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.contracts.worker import Listener, ignore_event, run_worker

log = logging.getLogger("llm_retrain.training")

_CODE = (
    *(f"tasks/training/{name}.py" for name in ("adapter", "device", "examples", "process", "schedule")),
    "tasks/contracts/engine.py",
    "triton_models/prompt.py",
)
_MEMORY_HINT = "lower training.batch_rows or training.max_length_tokens"


def train_adapter(
    base: BaseModelRef,
    dataset: DatasetRef,
    training: TrainingSection,
    system_prompt: str,
    store: Store,
    log_path: Path,
    listener: Listener = ignore_event,
) -> AdapterRef:
    """Return the adapter trained on `dataset`, training it only if the store has none.

    Args:
        base: the model that is adapted.
        dataset: its `train.jsonl` is trained on.
        training: method and hyperparameters.
        system_prompt: what the server will put before conversations without one.
        store: keeps the adapter, keyed by the digests of all of the above.
        log_path: where the training process's standard error goes.
        listener: called with each event of the training process as it happens.

    Raises:
        TrainingError: the process ended without a complete adapter; says what it said last.
    """
    inputs = {
        "base": base.digest,
        "rows": digest_of_file(dataset.path / "train.jsonl"),
        "training": training.model_dump(mode="json"),
        "system_prompt": system_prompt,
        "template_date": TEMPLATE_DATE,
        "code": code_digest(*_CODE),
        "libraries": library_versions("torch", "transformers", "tokenizers", "peft", "bitsandbytes"),
    }

    def write(out: Path) -> dict[str, Any]:
        spec = {
            "base": str(base.path),
            "base_name": base.source,
            "rows": str(dataset.path / "train.jsonl"),
            "out": str(out / "adapter"),
            "training": training.model_dump(mode="json"),
            "system_prompt": system_prompt,
        }
        started = time.monotonic()
        events = run_worker("tasks.training.process", spec, log_path, TrainingError, listener, _MEMORY_HINT)
        facts = _facts(events, out, time.monotonic() - started)
        if facts["rows_too_long"]:
            log.warning(
                "%d of %d training rows are longer than training.max_length_tokens (%d) and were not trained on",
                facts["rows_too_long"],
                facts["rows_too_long"] + facts["rows"],
                training.max_length_tokens,
            )
        return facts

    entry = store.produce("adapter", inputs, write)
    return AdapterRef(
        path=entry.path,
        digest=entry.facts["adapter_digest"],
        train_rows=entry.facts["rows"],
        tokens=entry.facts["tokens"],
        final_loss=entry.facts["final_loss"],
        seconds=entry.facts["seconds"],
        rows_too_long=entry.facts["rows_too_long"],
    )


def training_steps(adapter: AdapterRef) -> list[dict[str, Any]]:
    """Return the recorded optimizer steps of an adapter, for the loss curve of a run that reuses it."""
    return list(read_jsonl(adapter.path / "steps.jsonl"))


def _facts(events: list[dict[str, Any]], out: Path, seconds: float) -> dict[str, Any]:
    steps = [event for event in events if event["event"] == "step"]
    weights = out / "adapter" / "adapter_model.safetensors"
    if not steps or not weights.is_file():
        raise TrainingError("the training process ended without an error and without an adapter")
    write_jsonl(out / "steps.jsonl", steps)
    start = next(event for event in events if event["event"] == "start")
    files = {
        p.name: digest_of_file(p) for p in sorted((out / "adapter").iterdir()) if p.suffix in (".safetensors", ".json")
    }
    return {
        "adapter_digest": digest_of(files),
        "rows": start["rows"],
        "rows_too_long": start["rows_too_long"],
        "trainable_parameters": start["trainable_parameters"],
        "device": start["device"],
        "precision": start["precision"],
        "tokens": steps[-1]["tokens"],
        "final_loss": steps[-1]["loss"],
        "seconds": seconds,
    }
