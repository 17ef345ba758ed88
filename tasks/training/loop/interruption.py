"""A request to stop: SIGTERM (Prefect's cancel, a machine that goes down) or SIGINT (Ctrl+C).

While a run is prepared there is nothing to save, and the request ends it at once. From the first step on it only sets a
flag, which is looked at between two forward passes: nothing is torn in the middle of a step, and the state is saved.
Several processes agree on it by a sum, so that all take a step or none does.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tasks.contracts.errors import TrainingStopped
from tasks.training.distributed.group import Group


class StopRequested(Exception):
    """Raised between two forward passes; whoever holds the state saves it."""


class Interruption:
    """Whether somebody asked to stop, and whether that can wait for the end of a forward pass.

    Attributes:
        requested: somebody asked.
        ends_at_once: nothing is to be saved yet.
    """

    def __init__(self, ends_at_once: bool = False) -> None:
        self.requested, self.ends_at_once = False, ends_at_once

    def request(self, signal_number: int, frame: FrameType | None) -> None:
        """Remember the request; a second one changes nothing, the state is being saved.

        Raises:
            TrainingStopped: no step was begun yet.
        """
        self.requested = True
        if self.ends_at_once:
            self.ends_at_once = False
            raise TrainingStopped(
                "the training was asked to stop while it was prepared; the same run begins there again, with the "
                "steps that were kept before, if there are any"
            )

    def defer(self) -> None:
        """From now on a request waits until `check`."""
        self.ends_at_once = False

    def check(self) -> None:
        """Raise if somebody asked to stop.

        Raises:
            StopRequested: somebody did.
        """
        if self.requested:
            raise StopRequested

    def check_together(self, group: Group) -> None:
        """Raise on all processes if somebody asked one of them to stop.

        Raises:
            StopRequested: somebody did.
        """
        if group.sum([self.requested])[0]:
            raise StopRequested


@contextmanager
def listening() -> Iterator[Interruption]:
    """Listen to SIGTERM and SIGINT while the block runs; until `defer` is called they end it at once."""
    interruption = Interruption(ends_at_once=True)
    before = {number: signal.signal(number, interruption.request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
