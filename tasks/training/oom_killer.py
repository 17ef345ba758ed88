"""The kernel's out-of-memory killer: whether it was at work, and what the next attempt of the run does otherwise.

A training that it killed would be killed again at the same place. So the next attempt begins with half the micro-batch,
and the same rows a step. A SIGKILL of anybody else changes nothing: that run shall end with the very same weights.
"""

from pathlib import Path
from typing import Any

from tasks.contracts.errors import TrainingError
from tasks.training.loop.checkpoints import ask_for_smaller

_COUNTERS = Path("/proc/vmstat")


def oom_kills(counters: Path = _COUNTERS) -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 if it does not say.

    Linux counts those of a container's own limit here, too (mm/oom_kill.c).
    """
    try:
        lines = counters.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class OomWatch:
    """Follows an attempt, and remembers the size of its micro-batches."""

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints, self._kills, self._tokens = checkpoints, oom_kills(), 0

    def note(self, event: dict[str, Any]) -> None:
        """Hear an event of the training process."""
        if event["event"] == "start":
            self._tokens = event["micro_batch_tokens"]
        elif event["event"] == "smaller":
            self._tokens = event["to_tokens"]

    def after(self, error: TrainingError) -> TrainingError:
        """Return the error to raise for one that ended the attempt, and ask for less if the kernel ended it."""
        if oom_kills() == self._kills or not self._tokens:
            return error
        tokens = max(1, self._tokens // 2)
        ask_for_smaller(self._checkpoints, tokens)
        return TrainingError(
            f"{error}; the kernel ended a process for want of memory meanwhile, so the next attempt begins with "
            f"micro-batches of {tokens} instead of {self._tokens} tokens"
        )
