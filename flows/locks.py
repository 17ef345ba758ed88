"""Locks on the state directory: what must not happen twice at once waits for its turn."""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.contracts.errors import LlmRetrainError
from tasks.contracts.home import Home

log = logging.getLogger("llm_retrain.rollout")

_POLL_SECONDS = 0.2


@contextmanager
def waiting_lock(home: Home, name: str, timeout_seconds: float, busy: LlmRetrainError) -> Iterator[None]:
    """Hold the lock `name` of this home; a process that ends, however it ends, gives it back.

    Args:
        home: the state directory.
        name: the lock's file, `<name>.lock`.
        timeout_seconds: how long to wait for whoever holds it.
        busy: raised when that time is over.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    waiting = False
    with (home.root / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise busy from None
            if not waiting:
                log.info("Waiting up to %s: another %s is under way", _spelled(timeout_seconds), name)
                waiting = True
            time.sleep(_POLL_SECONDS)
        yield


def _spelled(seconds: float) -> str:
    return f"{seconds / 3_600:g} h" if seconds >= 3_600 else f"{seconds:g} s"
