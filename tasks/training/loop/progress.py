"""Where a run is, and what it has told until there."""

from dataclasses import dataclass, field
from typing import Any

from tasks.contracts.worker import say


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimizer steps that were taken.
        tokens: tokens that were trained on, padding not counted; of a pair the prompt with either answer.
        seconds: time in the loop, of all its processes so far.
        most_tokens: the largest micro-batch, in tokens with padding; 0: no limit.
        skipped: steps that changed nothing, because scaled gradients were too large for fp16.
        told: the events so far that belong to the result.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    most_tokens: int = 0
    skipped: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the step and the events."""
        return {key: getattr(self, key) for key in ("tokens", "seconds", "most_tokens", "skipped")}

    def tell(self, event: str, **facts: Any) -> None:
        """Say an event that belongs to the result: a resumed run will say it again."""
        self.told.append({"event": event, **facts})
        say(event, **facts)
