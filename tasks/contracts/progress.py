"""Progress of long work: a bar where a terminal is there, a progress artifact where a Prefect flow runs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

Report = Callable[[int, str], None]

_ARTIFACT_SECONDS = 2.0


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
    """The Prefect side: silent outside of a flow run, throttled inside."""

    def __init__(self, title: str, total: int, key: str) -> None:
        from prefect.context import FlowRunContext, TaskRunContext

        self.title, self.total = title, max(total, 1)
        self.id: UUID | None = None
        self.last = 0.0
        if FlowRunContext.get() or TaskRunContext.get():
            from prefect.artifacts import create_progress_artifact

            self.id = cast(UUID, create_progress_artifact(progress=0.0, key=key, description=title))

    def report(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self.id is not None and now - self.last >= _ARTIFACT_SECONDS:
            self.last = now
            self._update(100.0 * done / self.total, note)

    def finish(self) -> None:
        if self.id is not None:
            self._update(100.0, "")

    def _update(self, percent: float, note: str) -> None:
        from prefect.artifacts import update_progress_artifact

        assert self.id is not None
        update_progress_artifact(
            artifact_id=self.id, progress=min(percent, 100.0), description=f"{self.title} {note}".strip()
        )
