"""Long rows are left out or cut off as configured, counted, and said in log, card, tags and outcome."""

import pytest
from tiny_model import CONTEXT_TOKENS
from tiny_training import dataset_of, row, section, start_of, tiny_base, train_here

from tasks.training.adapter import TrainingJob, warn_of_long_rows

SHORT, LONG = "Return the sum.", "Open the file and read all of its lines. " * 40


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    ("long_rows", "rows", "said"),
    [
        ("drop", 6, "2 of 8 training rows are longer than training.max_length_tokens (200) and were not trained on"),
        (
            "truncate",
            8,
            "2 of 8 training rows are longer than training.max_length_tokens (200) and were trained on without the end "
            "of their answer",
        ),
    ],
)
def test_what_became_of_long_rows_is_counted_and_said(base, tmp_path, monkeypatch, caplog, long_rows, rows, said):
    data = [row(n, f"Say number {n}.", LONG if n < 2 else SHORT) for n in range(8)]
    training = section(max_length_tokens=200, long_rows=long_rows)
    job = TrainingJob(base, dataset_of(tmp_path / "rows", data), training)
    start = start_of(train_here(job, tmp_path / "adapter", monkeypatch))
    assert start["rows"] == rows
    assert start["rows_too_long"] + start["rows_cut_off"] == 2
    warn_of_long_rows(start, training)
    assert [record.message for record in caplog.records] == [said]


def test_a_row_whose_question_alone_is_too_long_is_left_out_also_where_answers_are_cut_off(base, tmp_path, monkeypatch):
    data = [row(0, LONG, SHORT), row(1, "Say it.", SHORT)]
    training = section(max_length_tokens=100, long_rows="truncate")
    job = TrainingJob(base, dataset_of(tmp_path / "rows", data), training)
    start = start_of(train_here(job, tmp_path / "adapter", monkeypatch))
    assert (start["rows"], start["rows_too_long"], start["rows_cut_off"]) == (1, 1, 0)


def test_a_context_shorter_than_what_is_configured_is_said_and_so_are_replayed_rows(
    base, tmp_path, monkeypatch, caplog
):
    own = dataset_of(tmp_path / "own", [row(n, f"Say number {n}.", SHORT) for n in range(4)])
    general = dataset_of(tmp_path / "general", [row(0, "Say it.", 3 * LONG), row(1, "Say it.", SHORT)])
    training = section(method="prefix", virtual_tokens=12, replay="12345678")
    start = start_of(train_here(TrainingJob(base, own, training, replay=general), tmp_path / "adapter", monkeypatch))
    caplog.set_level("INFO", "llm_retrain.training")
    warn_of_long_rows(start, training)
    room = CONTEXT_TOKENS - 12
    assert [record.message for record in caplog.records if record.name == "llm_retrain.training"] == [
        f"The model's context has room for rows of {room} tokens; training.max_length_tokens is 1024",
        f"1 of 2 replay rows are longer than the {room} tokens that the model's context has room for and were not "
        "trained on",
    ]
