"""Another machine lends its devices to a training that the first machine runs."""

from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import BaseModelRef
from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import Listener, WorkerOrder, follow, ignore_event

_MEMORY_HINT = "lower training.micro_batch_tokens or training.max_length_tokens"
_STOP_SECONDS = 120.0


def join_training(
    training: TrainingSection, node: int, base: BaseModelRef, log_path: Path, listener: Listener = ignore_event
) -> None:
    """Take part in one training to its end; nothing of it stays on this machine.

    Args:
        training: says where the first machine is, and how many processes are started here; the rest of it, and the
            rows, come from the first machine.
        node: this machine's number, from 1 on.
        base: the base model as this machine has it.
        log_path: where the processes' standard error goes.
        listener: called with each event, of which there are none but errors.

    Raises:
        TrainingError: the number is none of `training.nodes`, or the training failed.
        TrainingStopped: somebody asked to stop it, here or there.
    """
    if not 1 <= node < training.nodes:
        raise TrainingError(
            f"training.nodes is {training.nodes}, and this machine is to be number {node}; expected a number from 1 to "
            f"{training.nodes - 1}"
        )
    spec: dict[str, Any] = {"node": node, "base": str(base.path), "training": training.model_dump(mode="json")}
    module = "tasks.training.distributed.launch"
    follow(WorkerOrder(module, spec, log_path, TrainingError, _MEMORY_HINT, stop_seconds=_STOP_SECONDS), listener)
