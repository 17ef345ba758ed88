"""Trains an adapter: starts the training process, follows it, and keeps what it made."""

import logging
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides an adapter's weights.

    Attributes:
        base: the model that is adapted.
        dataset: its `train.jsonl` is trained on.
        training: method and hyperparameters.
        system_prompt: what the server will put before conversations without one.
    """

    base: BaseModelRef
    dataset: DatasetRef
    training: TrainingSection
    system_prompt: str = ""

    @property
    def rows(self) -> Path:
        """The rows that are trained on."""
        return self.dataset.path / "train.jsonl"

    def store_inputs(self) -> dict[str, Any]:
        """Return what the store knows the adapter by."""
        return {
            "base": self.base.digest,
            "rows": digest_of_file(self.rows),
            "training": self.training.model_dump(mode="json"),
            "system_prompt": self.system_prompt,
            "template_date": TEMPLATE_DATE,
            "code": code_digest(*_CODE),
            "libraries": library_versions("torch", "transformers", "tokenizers", "peft", "bitsandbytes"),
        }

    def order(self, adapter: Path) -> dict[str, Any]:
        """Return what the training process is told; it writes to `adapter`."""
        return {
            "base": str(self.base.path),
            "base_name": self.base.source,
            "rows": str(self.rows),
            "out": str(adapter),
            "training": self.training.model_dump(mode="json"),
            "system_prompt": self.system_prompt,
        }


def train_adapter(job: TrainingJob, store: Store, log_path: Path, listener: Listener = ignore_event) -> AdapterRef:
    """Return the adapter of a job, training it only if the store has none.

    Args:
        job: what is trained on what, and how.
        store: keeps the adapter, keyed by the digests of all of that.
        log_path: where the training process's standard error goes.
        listener: called with each event of the training process as it happens.

    Raises:
        TrainingError: the process ended without a complete adapter; says what it said last.
    """

    def write(out: Path) -> dict[str, Any]:
        started = time.monotonic()
        order = job.order(out / "adapter")
        events = run_worker("tasks.training.process", order, log_path, TrainingError, listener, _MEMORY_HINT)
        facts = _facts(events, out, time.monotonic() - started)
        if facts["rows_too_long"]:
            log.warning(
                "%d of %d training rows are longer than training.max_length_tokens (%d) and were not trained on",
                facts["rows_too_long"],
                facts["rows_too_long"] + facts["rows"],
                job.training.max_length_tokens,
            )
        return facts

    entry = store.produce("adapter", job.store_inputs(), write)
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
