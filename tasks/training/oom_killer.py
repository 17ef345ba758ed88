"""The kernel's out-of-memory killer: whether it was at work, and what the next attempt of the run does otherwise.

A training that it killed would be killed again at the same place. So the next attempt begins with half the micro-batch,
and the same rows a step. A SIGKILL of anybody else changes nothing: that run shall end with the very same weights.
An attempt that ended otherwise changes nothing either: the kernel may have killed a process of somebody else.
"""

from pathlib import Path
from typing import Any

from tasks.contracts.errors import TrainingError
from tasks.training.loop.checkpoints import ask_for_smaller

_COUNTERS = Path("/proc/vmstat")
_KILLED = "(SIGKILL)"
"""In what the parent of a killed process says, and the launcher of several."""


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
        self._checkpoints, self._kills = checkpoints, oom_kills()
        self._tokens, self._longest_row = 0, 0

    def note(self, event: dict[str, Any]) -> None:
        """Hear an event of the training process."""
        if event["event"] == "start":
            self._tokens, self._longest_row = event["micro_batch_tokens"], event["longest_tokens"]
        elif event["event"] == "smaller":
            self._tokens = event["to_tokens"]

    def after(self, error: TrainingError) -> TrainingError:
        """Return the error to raise for one that ended the attempt, and ask for less if the kernel ended it."""
        if oom_kills() == self._kills or not self._tokens or _KILLED not in str(error):
            return error
        if self._tokens <= self._longest_row:
            return TrainingError(
                f"{error}; the kernel ended it for want of memory, on a single row of {self._longest_row} tokens: "
                "lower training.max_length_tokens, or set training.activation_checkpointing"
            )
        tokens = max(self._longest_row, self._tokens // 2)
        ask_for_smaller(self._checkpoints, tokens)
        return TrainingError(
            f"{error}; the kernel ended a process for want of memory meanwhile, so the next attempt begins with "
            f"micro-batches of {tokens} instead of {self._tokens} tokens"
        )
