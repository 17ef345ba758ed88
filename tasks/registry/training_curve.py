"""The curves of a training in MLflow while they grow, and tags for what befell it."""

import math
import time
from typing import Any

from tasks.registry.journal import Entry

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


class TrainingCurve:
    """Makes entries of a run's journal of what a training says.

    A resumed training tells again what it told before; every point is an entry once.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def skip(self, kind: str, step: int) -> None:
        """Leave out events "step" or "validation" up to a step: the run has them."""
        self._last[kind] = max(step, self._last.get(kind, 0))

    def entry_of(self, event: dict[str, Any]) -> Entry | None:
        """Return what an event of the training process says; None if it says nothing for MLflow."""
        kind = event["event"]
        if kind in ("step", "validation"):
            if event["step"] <= self._last.get(kind, 0):
                return None
            self._last[kind] = event["step"]
            return _points(event, _STEP_METRICS if kind == "step" else ("loss",), "train" if kind == "step" else kind)
        if kind in _TAGS:
            key, spelled = _TAGS[kind]
            return {"kind": "facts", "params": {}, "tags": {f"llm_retrain.{key}": spelled.format(**event)}}
        return None


def _points(event: dict[str, Any], names: tuple[str, ...], prefix: str) -> Entry:
    now = int(time.time() * 1_000)
    figures = {f"{prefix}/{name}": event.get(name) for name in names}
    points = [
        [key, float(value), now, event["step"]]
        for key, value in figures.items()
        if value is not None and math.isfinite(value)
    ]
    return {"kind": "points", "metrics": points}


_TAGS = {
    "resumed": ("resumed", "from step {step} of {total_steps}, weights {digest:.12}"),
    "smaller": ("smaller_micro_batch", "in step {step}: {to_tokens} instead of {from_tokens} tokens"),
    "early_stop": ("early_stop", "after step {step}, lowest validation loss {best_loss:.4f}"),
    "damaged_checkpoint": ("damaged_checkpoint", "{name}: {damage}"),
    "checkpoint_failed": ("checkpoint_failed", "step {step}: {reason}"),
}
