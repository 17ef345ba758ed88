import logging

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
