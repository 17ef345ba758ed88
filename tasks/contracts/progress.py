"""Progress of long work: a bar where a terminal is there, a progress artifact where a Prefect flow runs."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

log = logging.getLogger("llm_retrain.progress")

Report = Callable[[int, str], None]

_ARTIFACT_SECONDS = 2.0
# After a failure: the client has waited for the server long enough, and the work waits with it.
_PAUSE_SECONDS = 60.0


@contextmanager
def stage_progress(title: str, total: int, artifact_key: str) -> Iterator[Report]:
    """Yield `report(done, note)` for work of `total` steps.

    Args:
        title: what a person reads beside the bar.
        total: steps in all.
        artifact_key: key of the Prefect progress artifact (lowercase letters, digits, dashes).
    """
    artifact = _ProgressArtifact(title, total, artifact_key)
    if not sys.stderr.isatty():
        yield artifact.report
        artifact.finish()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")

        def report(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)
            artifact.report(done, note)

        yield report
    artifact.finish()


class _ProgressArtifact:
    """The Prefect side: silent outside of a flow run, throttled inside; its failures end no work."""

    def __init__(self, title: str, total: int, key: str) -> None:
        from prefect.context import FlowRunContext, TaskRunContext

        self.title, self.total = title, max(total, 1)
        self.id: UUID | None = None
        self.next = 0.0
        self.warned = False
        if FlowRunContext.get() or TaskRunContext.get():
            from prefect.artifacts import create_progress_artifact

            with self._tolerating_the_server():
                self.id = cast(UUID, create_progress_artifact(progress=0.0, key=key, description=title))

    def report(self, done: int, note: str = "") -> None:
        if self.id is not None and time.monotonic() >= self.next:
            self.next = time.monotonic() + _ARTIFACT_SECONDS
            self._update(100.0 * done / self.total, note)

    def finish(self) -> None:
        if self.id is not None:
            self._update(100.0, "")

    def _update(self, percent: float, note: str) -> None:
        from prefect.artifacts import update_progress_artifact

        assert self.id is not None
        with self._tolerating_the_server():
            update_progress_artifact(
                artifact_id=self.id, progress=min(percent, 100.0), description=f"{self.title} {note}".strip()
            )

    @contextmanager
    def _tolerating_the_server(self) -> Iterator[None]:
        """Log what the Prefect client raises, once: hours of work are worth more than their progress bar."""
        from httpx import HTTPError
        from prefect.exceptions import PrefectException

        try:
            yield
        except (HTTPError, PrefectException) as error:
            self.next = time.monotonic() + _PAUSE_SECONDS
            if not self.warned:
                self.warned = True
                said = " ".join(str(error).split())
                log.warning(
                    "the progress of %s cannot be shown in Prefect (%s: %s); the work goes on",
                    *(self.title, type(error).__name__, said),
                )
