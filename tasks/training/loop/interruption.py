"""A request to stop: SIGTERM (Prefect's cancel, a machine that goes down) or SIGINT (Ctrl+C) sets a flag.

The loop looks at it between two forward passes, saves and ends; nothing is torn in the middle of a step.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, signal_number: int, frame: FrameType | None) -> None:
        """Remember the request; a second one changes nothing, the state is being saved."""
        self.requested = True


@contextmanager
def listening() -> Iterator[Interruption]:
    """Listen to SIGTERM and SIGINT while the block runs."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
