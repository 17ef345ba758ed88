"""Asks a process of its own for the plan of a training."""

from pathlib import Path
from typing import Any

from tasks.contracts.errors import TrainingError
from tasks.contracts.store import Store
from tasks.contracts.worker import WorkerOrder, follow
from tasks.training.adapter import TrainingJob


def request_plan(job: TrainingJob, store: Store, log_path: Path) -> dict[str, Any]:
    """Return what the training of a job would need: bytes by part, seconds, and advice if it does not fit.

    Nothing is trained and no weight is loaded.

    Raises:
        TrainingError: no row fits, or the model's shape rules out what is configured.
    """
    order = job.order(Path("unused"), None, store)
    events = follow(WorkerOrder("tasks.training.plan.process", order, log_path, TrainingError, "free memory"))
    plan = next(event for event in events if event["event"] == "plan")
    return {key: value for key, value in plan.items() if key != "event"}
