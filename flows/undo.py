"""The way back of a transaction: steps that are run in reverse if it fails, each whatever became of the others."""

import logging
from collections.abc import Callable

log = logging.getLogger("llm_retrain.rollout")


class UndoSteps:
    """What would undo the steps done so far."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Add the way back of what is done next; before it is done, because it may fail half way."""
        self._steps.append((what, step))

    def run(self) -> list[str]:
        """Undo everything, last step first, and return a sentence for each step that failed.

        An interrupt is no way out either: the steps left are those that bring the champion back.
        """
        failures = []
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except BaseException as error:
                log.exception("Undoing failed: %s", what)
                failures.append(f"{what}: {str(error) or type(error).__name__}")
        return failures
