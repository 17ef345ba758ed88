"""Trains an adapter: starts the training process, follows it, and keeps what it made."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef
from tasks.contracts.engine import TEMPLATE_DATE
from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.jsonl import digest_of, digest_of_file, read_jsonl, write_jsonl
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import Listener, WorkerOrder, follow, ignore_event
from tasks.training.announcements import announce
from tasks.training.device import gpus_at_hand
from tasks.training.oom_killer import OomWatch

log = logging.getLogger("llm_retrain.training")

_CODE = (
    *(f"tasks/training/{name}.py" for name in ("adapter", "device", "parts", "process", "shape")),
    "tasks/training/distributed",
    "tasks/training/fast",
    "tasks/training/loop",
    "tasks/training/plan",
    "tasks/contracts/canaries.py",
    "tasks/contracts/engine.py",
    "tasks/contracts/methods.py",
    "triton_models/prompt.py",
)
_MEMORY_HINT = "lower training.micro_batch_tokens or training.max_length_tokens"
_STOP_SECONDS = 120.0
"""Time to save a checkpoint when the training is asked to stop."""
_CHECKPOINTS = ".checkpoints"
_RECORDED = ("step", "validation", "smaller", "early_stop")
_ABANDONED_SECONDS = 30 * 24 * 3600.0
"""Checkpoints that nobody went on from for so long are removed."""
_NO_RESULT = ("checkpoint_seconds", "replay", "teacher", "processes", "sharding", "nodes", "main_address", "main_port")
"""Settings that change no weight, or whose contents are among the inputs by digest, however they are spelled.

The number of processes changes the last digits: a run may go on with another one."""
_ONE_PROCESS, _LAUNCHER = "tasks.training.process", "tasks.training.distributed.launch"


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides an adapter's weights.

    Attributes:
        base: the model that is adapted.
        dataset: its `train.jsonl` is trained on.
        training: method and hyperparameters.
        system_prompt: what the server will put before conversations without one.
        replay: a data set of general rows, some of which are trained on too.
        teacher: the model that a distillation learns from.
    """

    base: BaseModelRef
    dataset: DatasetRef
    training: TrainingSection
    system_prompt: str = ""
    replay: DatasetRef | None = None
    teacher: BaseModelRef | None = None

    @property
    def rows(self) -> Path:
        """The rows that are trained on."""
        return _train_rows(self.dataset)

    def store_inputs(self) -> dict[str, Any]:
        """Return what the store knows the adapter by."""
        return {
            "base": self.base.digest,
            "rows": digest_of_file(self.rows),
            "replay": digest_of_file(_train_rows(self.replay)) if self.replay else None,
            "teacher": self.teacher.digest if self.teacher else None,
            "training": self.training.model_dump(mode="json", exclude=set(_NO_RESULT)),
            "system_prompt": self.system_prompt,
            "template_date": TEMPLATE_DATE,
            "code": code_digest(*_CODE),
            "libraries": library_versions("torch", "transformers", "tokenizers", "peft", "bitsandbytes"),
        }

    def order(self, adapter: Path, checkpoints: Path | None, store: Store | None = None) -> dict[str, Any]:
        """Return what the training process is told; it writes to `adapter`, and to `checkpoints` on its way.

        Speeds that it measures of the device are kept in the store's root.
        """
        return {
            "base": str(self.base.path),
            "base_name": self.base.source,
            "rows": str(self.rows),
            "replay": str(_train_rows(self.replay)) if self.replay else "",
            "teacher": str(self.teacher.path) if self.teacher else "",
            "out": str(adapter),
            "checkpoints": str(checkpoints or ""),
            "speeds": str(store.root / ".speeds") if store else "",
            "training": self.training.model_dump(mode="json"),
            "system_prompt": self.system_prompt,
        }


def train_adapter(
    job: TrainingJob,
    store: Store,
    log_path: Path,
    listener: Listener = ignore_event,
    deadline: float | None = None,
) -> AdapterRef:
    """Return the adapter of a job, training it only if the store has none.

    Args:
        job: what is trained on what, and how.
        store: keeps the adapter, keyed by the digests of all of that.
        log_path: where the training process's standard error goes.
        listener: called with each event of the training process as it happens.
        deadline: when to stop it, on the clock of `time.monotonic`; None: never.

    A training that was killed or stopped goes on from its newest sound checkpoint when it is asked for again.

    Raises:
        TrainingError: the process ended without a complete adapter; says what it said last.
        TrainingStopped: it was asked to stop, and saved where it was.
    """
    inputs = job.store_inputs()
    checkpoints = checkpoints_of(store, inputs)

    def write(out: Path) -> dict[str, Any]:
        started = time.monotonic()
        remove_abandoned(store, time.time() - _ABANDONED_SECONDS)
        module = _LAUNCHER if takes_several_processes(job.training) else _ONE_PROCESS
        order = job.order(out / "adapter", checkpoints, store)
        worker = WorkerOrder(module, order, log_path, TrainingError, _MEMORY_HINT, stop_seconds=_STOP_SECONDS)
        events = _follow_training(worker, OomWatch(checkpoints), listener, deadline)
        return _facts(events, out, time.monotonic() - started)

    entry = store.produce("adapter", inputs, write)
    shutil.rmtree(checkpoints, ignore_errors=True)
    warn_of_long_rows(entry.facts, job.training)
    return AdapterRef(
        path=entry.path,
        digest=entry.facts["adapter_digest"],
        train_rows=entry.facts["rows"],
        tokens=entry.facts["tokens"],
        final_loss=entry.facts["final_loss"],
        seconds=entry.facts["seconds"],
        rows_too_long=entry.facts["rows_too_long"],
        estimate=entry.facts["estimate"],
        rows_cut_off=entry.facts["rows_cut_off"],
        longest_row_tokens=entry.facts["longest_row_tokens"],
    )


def is_trained(job: TrainingJob, store: Store) -> bool:
    """Say whether the store has the adapter of a job."""
    return store.find("adapter", store.key("adapter", job.store_inputs())) is not None


def _follow_training(
    worker: WorkerOrder, watch: OomWatch, listener: Listener, deadline: float | None
) -> list[dict[str, Any]]:
    def tell(event: dict[str, Any]) -> None:
        announce(event)
        watch.note(event)
        listener(event)

    try:
        return follow(worker, tell, deadline)
    except TrainingStopped:
        raise
    except TrainingError as error:
        raise watch.after(error) from None


def takes_several_processes(training: TrainingSection) -> bool:
    """Say whether a launcher has to start the training, or the training is one process."""
    if training.nodes > 1 or training.processes:
        return training.nodes * training.processes != 1
    return training.device != "cpu" and gpus_at_hand() > 1


def checkpoints_of(store: Store, inputs: dict[str, Any]) -> Path:
    """Return the folder of a training's checkpoints; it is there only while the training is not finished."""
    return store.root / _CHECKPOINTS / store.key("adapter", inputs)


def unfinished_trainings(store: Store) -> list[Path]:
    """Return the folders of checkpoints: trainings that were stopped or killed, or that run now."""
    return sorted((store.root / _CHECKPOINTS).glob("*"))


def adapters_of_rows(store: Store, rows: set[str]) -> list[Path]:
    """Return the folders of adapters that were trained on files of rows, or replayed them, by the files' digests."""
    entries = store.entries("adapter")
    return [entry.path for entry in entries if rows & {entry.inputs.get("rows"), entry.inputs.get("replay")}]


def remove_abandoned(store: Store, before: float) -> None:
    """Remove the checkpoints of trainings that have saved none since `before`, in seconds since 1970."""
    for folder in unfinished_trainings(store):
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except FileNotFoundError:  # another training replaces or removes its own just now
            continue
        if newest < before:
            log.info("Removing the checkpoints of training %s, which nobody went on with", folder.name[:12])
            shutil.rmtree(folder, ignore_errors=True)


def training_events(adapter: AdapterRef) -> list[dict[str, Any]]:
    """Return the recorded steps, validations and what else befell a training: the curves of a run that reuses it."""
    return list(read_jsonl(adapter.path / "events.jsonl"))


def warn_of_long_rows(facts: dict[str, Any], training: TrainingSection) -> None:
    """Say how many rows were too long and what became of them; also of an adapter that is reused.

    Args:
        facts: of the adapter's entry.
        training: its section of the configuration.
    """
    longest, wanted = facts["longest_row_tokens"], training.max_length_tokens
    limit = f"training.max_length_tokens ({wanted})"
    if longest < wanted:
        log.info(
            "The model's context has room for rows of %d tokens; training.max_length_tokens is %d", longest, wanted
        )
        limit = f"the {longest} tokens that the model's context has room for"
    sets = {"training": facts, "replay": facts["replay"]}
    for name, counted in sets.items():
        rows = counted["rows"] + counted["rows_too_long"]
        if counted["rows_too_long"]:
            log.warning(
                "%d of %d %s rows are longer than %s and were not trained on",
                *(counted["rows_too_long"], rows, name, limit),
            )
        if counted["rows_cut_off"]:
            log.warning(
                "%d of %d %s rows are longer than %s and were trained on without the end of their answer",
                *(counted["rows_cut_off"], rows, name, limit),
            )


def training_steps(adapter: AdapterRef) -> list[dict[str, Any]]:
    """Return the recorded optimizer steps of an adapter."""
    return [event for event in training_events(adapter) if event["event"] == "step"]


def validation_losses(adapter: AdapterRef) -> list[dict[str, Any]]:
    """Return what was measured on the validation rows while an adapter was trained; empty without such rows."""
    return [event for event in training_events(adapter) if event["event"] == "validation"]


def loss_of_kept_weights(losses: list[float], training: TrainingSection) -> float:
    """Return the validation loss of the weights that were saved: with patience the lowest, otherwise the last."""
    return min(losses) if training.patience else losses[-1]


def _facts(events: list[dict[str, Any]], out: Path, seconds: float) -> dict[str, Any]:
    told = [{key: value for key, value in event.items() if key != "again"} for event in events]
    steps = [event for event in told if event["event"] == "step"]
    if not steps or not any((out / "adapter").rglob("*.safetensors")):
        raise TrainingError("the training process ended without an error and without an adapter")
    write_jsonl(out / "events.jsonl", (event for event in told if event["event"] in _RECORDED))
    start, plan, measured = (
        next(event for event in events if event["event"] == name) for name in ("start", "plan", "measured")
    )
    files = {
        str(path.relative_to(out)): digest_of_file(path)
        for path in sorted((out / "adapter").rglob("*"))
        if path.suffix in (".safetensors", ".json")
    }
    return {
        "adapter_digest": digest_of(files),
        "rows": start["rows"],
        "rows_too_long": start["rows_too_long"],
        "rows_cut_off": start["rows_cut_off"],
        "replay": start["replay"],
        "longest_row_tokens": start["longest_row_tokens"],
        "trainable_parameters": start["trainable_parameters"],
        "device": start["device"],
        "precision": start["precision"],
        "tokens": steps[-1]["tokens"],
        "final_loss": steps[-1]["loss"],
        "seconds": seconds,
        "estimate": {
            "estimated_bytes": plan["total_bytes"],
            "measured_bytes": measured["bytes"],
            "estimated_seconds": plan["seconds"],
            "measured_seconds": measured["seconds"],
        },
    }


def _train_rows(dataset: DatasetRef) -> Path:
    return dataset.path / "train.jsonl"
