import gzip
import json
import logging
from uuid import uuid4

import pytest
from prefect.context import FlowRunContext

from tasks.contracts import progress
from tasks.contracts.config import DataSection
from tasks.contracts.source_config import FilesSource
from tasks.data import ingest, part
from tasks.data.execution import executors
from tasks.data.steps import accounting_table, build_dataset_task, ingest_rows

RECORDS = [{"instruction": f"Prompt {n}", "output": "Answer"} for n in range(10)]


def test_the_steps_hand_on_references_and_log_the_accounting(write_lines, data_of, place, caplog):
    data = data_of(write_lines(*RECORDS, RECORDS[0], b"broken"), eval_rows=3)
    with caplog.at_level(logging.INFO, logger="llm_retrain.data"):
        rows = ingest_rows.fn(data, place, data.sources)
        dataset = build_dataset_task.fn(rows, None, data, place, None)
    assert (dataset.train_rows, dataset.eval_rows) == (7, 3)
    assert caplog.messages == [
        "12 rows read, 11 kept, 1 not JSON",
        f"malformed records are listed with file and line number in {rows.path / 'rejected.jsonl'}",
        f"Data version {dataset.digest[:12]}: 12 rows read, 7 to train on, 3 to evaluate on, "
        "1 exact duplicate, 1 not JSON",
    ]


def test_a_quota_that_was_cut_is_one_warning_with_its_key(write_lines, data_of, place, caplog):
    data = data_of(write_lines(*RECORDS), eval_rows=200)
    with caplog.at_level(logging.WARNING, logger="llm_retrain.data"):
        build_dataset_task.fn(ingest_rows.fn(data, place, data.sources), None, data, place, None)
    assert caplog.messages == [
        "data.eval_rows is 200, but 3 rows are evaluated: at most 30 % of the prompts are held out; "
        "add rows, or name data.evaluation_sources"
    ]


def test_a_small_evaluation_set_of_your_own_is_no_cut_quota(write_lines, data_of, place, caplog):
    own = write_lines({"instruction": "Q", "output": "A"}, name="own.jsonl")
    data = data_of(write_lines(*RECORDS)).model_copy(update={"evaluation_sources": (own,)})
    with caplog.at_level(logging.WARNING, logger="llm_retrain.data"):
        rows, evaluation = (ingest_rows.fn(data, place, sources) for sources in (data.sources, (own,)))
        assert build_dataset_task.fn(rows, evaluation, data, place, None).eval_rows == 1
    assert caplog.messages == []


def test_the_table_leads_from_rows_read_to_every_place_they_went(write_lines, data_of, place):
    data = data_of(write_lines(*RECORDS, RECORDS[0], b"broken"), eval_rows=3)
    table = accounting_table(build_dataset_task.fn(ingest_rows.fn(data, place, data.sources), None, data, place, None))
    assert [(line["where"], line["rows"]) for line in table] == [
        ("read", 12),
        ("training", 7),
        ("evaluation", 3),
        ("rejected: exact duplicate", 1),
        ("rejected: not JSON", 1),
    ]


@pytest.fixture
def artifact_updates(monkeypatch):
    """Be in the context of a flow run, as Prefect sets it for the thread of a task; no server is asked."""
    updates = []
    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", lambda **update: updates.append(update))
    monkeypatch.setattr("tasks.data.steps.create_table_artifact", lambda **_: None)
    monkeypatch.setattr(progress, "_ARTIFACT_SECONDS", 0.0)
    with FlowRunContext.model_construct(flow=None, flow_run=None):
        yield updates


@pytest.mark.slow
def test_the_progress_artifact_is_updated_while_two_processes_work(
    write_lines, place, artifact_updates, caplog, monkeypatch
):
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    sources = tuple(write_lines(RECORDS[number], name=f"{number}.jsonl") for number in range(3))
    data = DataSection(sources=sources, execution={"processes": 2})
    assert ingest_rows.fn(data, place, data.sources).rows_kept == 3
    assert [round(update["progress"]) for update in artifact_updates] == [33, 67, 100, 100]


def test_a_large_compressed_file_does_not_keep_cleaning_in_one_process(data_of, place, tmp_path, monkeypatch):
    """One process unpacks it; what it leaves are files of rows that any process takes."""
    monkeypatch.setattr(part, "CHUNK_BYTES", 2_000)
    lines = b"".join(json.dumps({**RECORDS[0], "output": f"{n}"}).encode() + b"\n" for n in range(100))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(lines))
    data = data_of(FilesSource(path=str(path)))
    assert len(ingest.row_files(ingest.ingest(data, place, data.sources))) > 5
