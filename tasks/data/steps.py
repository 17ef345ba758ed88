"""The data stage as Prefect tasks: thin doors that report progress and the row accounting."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from tasks.contracts.artifacts import BaseModelRef, DatasetRef, RowSet
from tasks.contracts.config import DataSection
from tasks.contracts.progress import Report, stage_progress
from tasks.contracts.source_config import Source
from tasks.data import build, ingest, replay
from tasks.data.ingest import Place

log = logging.getLogger("llm_retrain.data")


@task(name="ingest rows", cache_policy=NO_CACHE)  # the store knows what is unchanged, by content
def ingest_rows(data: DataSection, place: Place, sources: tuple[Source, ...]) -> RowSet:
    """Read sources into canonical rows and log how many there are.

    Raises:
        DataError: a source cannot be read, or has too many malformed records.
        EnvironmentProblem: a package or an environment variable that a source needs is missing.
    """
    with _progress("reading", "ingest-progress") as progress:
        rows = ingest.ingest(data, place, sources, progress)
    log.info("%d rows read, %d kept%s", rows.rows_read, rows.rows_kept, _reasons(rows.rejected))
    if rows.rejected:
        log.warning("malformed records are listed with file and line number in %s", rows.path / "rejected.jsonl")
    return rows


@task(name="build data set", cache_policy=NO_CACHE)
def build_dataset_task(
    rows: RowSet, evaluation_rows: RowSet | None, data: DataSection, place: Place, base: BaseModelRef | None
) -> DatasetRef:
    """Clean and divide rows, log the accounting and show it as table artifacts of the flow run.

    Raises:
        DataError: nothing is left to train on or to evaluate on, or a step refuses the data.
    """
    with _progress("cleaning", "cleaning-progress") as progress:
        dataset = build.build_dataset(rows, evaluation_rows, data, place, base, progress)
    log.info(
        "Data version %s: %d rows read, %d to train on, %d to evaluate on%s",
        *(dataset.digest[:12], dataset.rows_read, dataset.train_rows, dataset.eval_rows, _reasons(dataset.rejected)),
    )
    if dataset.made_rows:
        log.info("%d rows were made of training rows and are trained on too", dataset.made_rows)
    build.warn_of_few(dataset, evaluation_rows, data)
    if FlowRunContext.get():
        create_table_artifact(
            key="row-accounting",
            table=accounting_table(dataset),
            description="Every row that was read is in training, in evaluation, or rejected for one reason.",
        )
        create_table_artifact(
            key="cleaning-steps",
            table=steps_table(dataset),
            description="What each step of the cleaning line changed and dropped, in its order.",
        )
    return dataset


@task(name="prepare replay", cache_policy=NO_CACHE)
def prepare_replay(digest: str, dataset: DatasetRef, place: Place) -> DatasetRef | None:
    """Take the training rows of a data version that may be replayed, if one is named.

    Raises:
        DataError: there is no such version, or no row of it may be replayed.
    """
    return replay.prepare_replay(digest, dataset, place)


def accounting_table(dataset: DatasetRef) -> list[dict[str, str | int]]:
    """Return a line for the rows read and one for each place they went to; those add up to the first."""
    counts = {
        "read": dataset.rows_read,
        "training": dataset.train_rows,
        "evaluation": dataset.eval_rows,
        **{f"rejected: {reason}": count for reason, count in sorted(dataset.rejected.items())},
    }
    return [{"where": where, "rows": count} for where, count in counts.items()]


def _reasons(rejected: dict[str, int]) -> str:
    return "".join(f", {count} {reason}" for reason, count in sorted(rejected.items()))


def steps_table(dataset: DatasetRef) -> list[dict[str, str | int]]:
    """Return a line for each step of the cleaning line: rows it changed and rows it dropped."""
    return [
        {"step": step["step"], "rows changed": step["changed"], "rows dropped": step["dropped"]}
        for step in dataset.steps
    ]


@contextmanager
def _progress(title: str, artifact_key: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)`; a bar is shown only for work of several parts."""
    with ExitStack() as stack:
        shown: list[Report] = []

        def report(done: int, total: int) -> None:
            if total > 1 and not shown:
                shown.append(stack.enter_context(stage_progress(title, total, artifact_key)))
            for bar in shown:
                bar(done, "")

        yield report
