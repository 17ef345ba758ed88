"""An MLflow that does not answer: what counts as that, and how to wait for it."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tasks.contracts.config import RegistrySection
from tasks.contracts.errors import LlmRetrainError, RegistryError

log = logging.getLogger("llm_retrain.registry")

_POLL_SECONDS = 5.0
_READ_TRIES = 3
_READ_PAUSE_SECONDS = 0.5
_SAY_SECONDS = 60.0
_TOO_MANY = 429

Result = TypeVar("Result")


def is_outage(error: BaseException | None) -> bool:
    """Say whether MLflow may take the same thing later: no connection, no answer in time, 5xx, a locked database.

    What refuses the content (4xx) is none. Of our own errors the cause decides, if it is MLflow's: another server that
    does not answer is no reason to wait for this one.
    """
    from mlflow.exceptions import MlflowException

    if isinstance(error, OSError):  # from an artifact store: all of requests' errors, and a disk's
        answer = getattr(error, "response", None)
        return answer is None or _is_later(answer.status_code)
    while isinstance(error, LlmRetrainError):
        error = error.__cause__
    return isinstance(error, MlflowException) and _is_later(int(error.get_http_status_code()))  # type: ignore[no-untyped-call]


def reading(do: Callable[[], Result]) -> Result:
    """Return what `do` reads; one answer that failed is no outage, and to ask again changes nothing."""
    for _ in range(_READ_TRIES - 1):
        try:
            return do()
        except Exception as error:
            if not is_outage(error):
                raise
        time.sleep(_READ_PAUSE_SECONDS)
    return do()


def patiently(do: Callable[[], Result], what: str, registry: RegistrySection) -> Result:
    """Return what `do` returns; while MLflow does not answer, say so, wait, and call it again.

    Args:
        do: can be called again after it got half-way.
        what: it does, for the log: "registering the candidate".
        registry: `wait_seconds` says how long.

    Raises:
        RegistryError: MLflow did not answer for that long.
    """
    began = time.monotonic()
    said = -_SAY_SECONDS
    while True:
        try:
            return do()
        except Exception as error:
            if not is_outage(error):
                raise
            waited = time.monotonic() - began
            if waited >= registry.wait_seconds:
                raise RegistryError(
                    f"{what} waited {waited:.0f} s for an MLflow that does not answer (registry.wait_seconds is "
                    f"{registry.wait_seconds:g}): {error}; what was made is kept: when MLflow answers, run the same "
                    "command again, and it goes on from here without training again"
                ) from error
            if waited - said >= _SAY_SECONDS:
                left = registry.wait_seconds - waited
                log.warning("MLflow does not answer; %s waits for it, %.0f s more at most: %s", what, left, error)
                said = waited
        time.sleep(min(_POLL_SECONDS, max(registry.wait_seconds - waited, 0.0)))


def _is_later(status: int) -> bool:
    return status >= 500 or status == _TOO_MANY
