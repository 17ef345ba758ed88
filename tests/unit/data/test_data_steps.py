import logging

from tasks.data.steps import accounting_table, build_dataset_task, ingest_rows

RECORDS = [{"instruction": f"Prompt {n}", "output": "Answer"} for n in range(8)]


def test_the_steps_hand_on_references_and_log_the_accounting(write_lines, data_of, store, caplog):
    data = data_of(write_lines(*RECORDS, RECORDS[0], b"broken"), eval_rows=3)
    with caplog.at_level(logging.INFO, logger="llm_retrain.data"):
        rows = ingest_rows.fn(data, store, data.sources)
        dataset = build_dataset_task.fn(rows, None, data, store)
    assert (dataset.train_rows, dataset.eval_rows) == (5, 3)
    assert caplog.messages == [
        "10 rows read, 9 kept, 1 not JSON",
        f"malformed lines are listed with file and line number in {rows.path / 'rejected.jsonl'}",
        "10 rows read: 5 to train on, 3 to evaluate on, 1 exact duplicate, 1 not JSON",
    ]


def test_the_table_leads_from_rows_read_to_every_place_they_went(write_lines, data_of, store):
    data = data_of(write_lines(*RECORDS, RECORDS[0], b"broken"), eval_rows=3)
    table = accounting_table(build_dataset_task.fn(ingest_rows.fn(data, store, data.sources), None, data, store))
    assert [(line["where"], line["rows"]) for line in table] == [
        ("read", 10),
        ("training", 5),
        ("evaluation", 3),
        ("rejected: exact duplicate", 1),
        ("rejected: not JSON", 1),
    ]
