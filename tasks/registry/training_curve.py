"""The curves of a training in MLflow while they grow, and tags for what befell it."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger("llm_retrain.registry")

_STEP_METRICS = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "memory_bytes",
    "gpu_utilisation",
    "skipped_steps",
    "ewc_penalty",
    "reward_margin",
    "reward_accuracy",
)
_FLUSH_SECONDS = 3.0
_METRICS_A_BATCH = 1_000
"""MLflow's own limit."""


class TrainingCurve:
    """Sends points in batches every few seconds, because single metrics are 20 times slower.

    What cannot be sent, for example because the database is locked, is sent with the next batch: hours of training do
    not end for it. A resumed training tells again what it told before; every point is sent once.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._metrics: list[Metric] = []
        self._tags: dict[str, str] = {}
        self._last: dict[str, int] = {}
        self._flushed = time.monotonic()

    def go_on(self) -> None:
        """Take up the curves that the run has from a process before this one: its points are sent no second time."""
        for kind, name in (("step", "train/loss"), ("validation", "validation/loss")):
            points = self._client.get_metric_history(self._run_id, name)
            self._last[kind] = max((point.step for point in points), default=0)

    def add(self, event: dict[str, Any]) -> None:
        """Add what an event of the training process says; events that say nothing for MLflow are ignored."""
        kind = event["event"]
        if kind in ("step", "validation"):
            if event["step"] <= self._last.get(kind, 0):
                return
            self._last[kind] = event["step"]
            self._add_points(event, _STEP_METRICS if kind == "step" else ("loss",), "train" if kind == "step" else kind)
        elif kind in _TAGS:
            key, spelled = _TAGS[kind]
            self._tags[f"llm_retrain.{key}"] = spelled.format(**event)
        else:
            return
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._try_to_flush()

    def flush(self) -> None:
        """Send what was not sent yet.

        Raises:
            MlflowException: MLflow did not take it; it is kept, and can be sent again.
        """
        from mlflow.entities import RunTag

        if self._tags:
            self._client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in self._tags.items()])
            self._tags.clear()
        while self._metrics:
            self._client.log_batch(self._run_id, metrics=self._metrics[:_METRICS_A_BATCH])
            del self._metrics[:_METRICS_A_BATCH]
        self._flushed = time.monotonic()

    def _add_points(self, event: dict[str, Any], names: tuple[str, ...], prefix: str) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1_000)
        for name in names:
            value = event.get(name)
            if value is not None and math.isfinite(value):
                self._metrics.append(Metric(f"{prefix}/{name}", float(value), now, event["step"]))

    def _try_to_flush(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.flush()
        except MlflowException as error:
            self._flushed = time.monotonic()
            log.warning("The training's curves are behind by %d points, sent again: %s", len(self._metrics), error)


_TAGS = {
    "resumed": ("resumed", "from step {step} of {total_steps}, weights {digest:.12}"),
    "smaller": ("smaller_micro_batch", "in step {step}: {to_tokens} instead of {from_tokens} tokens"),
    "early_stop": ("early_stop", "after step {step}, lowest validation loss {best_loss:.4f}"),
    "damaged_checkpoint": ("damaged_checkpoint", "{name}: {damage}"),
    "checkpoint_failed": ("checkpoint_failed", "step {step}: {reason}"),
}
