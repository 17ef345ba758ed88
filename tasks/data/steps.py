"""The data stage as Prefect tasks: thin doors that report the row accounting."""

import logging

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from tasks.contracts.artifacts import DatasetRef, RowSet
from tasks.contracts.config import DataSection, Source
from tasks.contracts.store import Store
from tasks.data.ingest import ingest
from tasks.data.split import HELD_OUT_PERCENT, build_dataset

log = logging.getLogger("llm_retrain.data")


@task(name="ingest rows", cache_policy=NO_CACHE)  # the store knows what is unchanged, by content
def ingest_rows(data: DataSection, store: Store, sources: tuple[Source, ...]) -> RowSet:
    """Read sources into canonical rows and log how many there are.

    Raises:
        DataError: a source cannot be read, or has too many malformed lines.
    """
    rows = ingest(data, store, sources)
    log.info("%d rows read, %d kept%s", rows.rows_read, rows.rows_kept, _reasons(rows.rejected))
    if rows.rejected:
        log.warning("malformed lines are listed with file and line number in %s", rows.path / "rejected.jsonl")
    return rows


@task(name="build data set", cache_policy=NO_CACHE)
def build_dataset_task(rows: RowSet, evaluation_rows: RowSet | None, data: DataSection, store: Store) -> DatasetRef:
    """Clean and split rows, log the accounting and show it as a table artifact of the flow run.

    Raises:
        DataError: nothing is left to train on or to evaluate on.
    """
    dataset = build_dataset(rows, evaluation_rows, data, store)
    log.info(
        "%d rows read: %d to train on, %d to evaluate on%s",
        *(dataset.rows_read, dataset.train_rows, dataset.eval_rows, _reasons(dataset.rejected)),
    )
    if evaluation_rows is None and dataset.eval_rows < data.eval_rows:
        log.warning(
            "data.eval_rows is %d, but %d rows are evaluated: at most %d %% of the prompts are held out; "
            "add rows, or name data.evaluation_sources",
            *(data.eval_rows, dataset.eval_rows, HELD_OUT_PERCENT),
        )
    if FlowRunContext.get():
        create_table_artifact(
            key="row-accounting",
            table=accounting_table(dataset),
            description="Every row that was read is in training, in evaluation, or rejected for one reason.",
        )
    return dataset


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
