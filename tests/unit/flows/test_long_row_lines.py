"""The end of a run says how many training rows were too long, and nothing where none were."""

import io

from rich.console import Console

from flows.outcome import Outcome
from flows.terminal.outcome import long_row_lines, render_outcome

SCORE = {"rougeL": {"value": 0.5, "low": 0.4, "high": 0.6}}


def shown(long_rows, preferences=()):
    outcome = Outcome(
        "rejected",
        "reject",
        5,
        ("worse",),
        40,
        {"base": SCORE, "candidate": SCORE},
        {"base": SCORE},
        (),
        None,
        {},
        "",
        {},
        long_rows=long_rows,
        preferences=preferences,
    )
    console = Console(file=io.StringIO(), width=120)
    render_outcome(console, outcome, {})
    assert outcome.to_json()["long_rows"] == long_rows
    return console.file.getvalue()


def test_whose_answers_a_judge_preferred_is_a_line_of_the_outcome():
    assert "• The judge (m[b]) preferred it" in shown({}, ("The judge (m[b]) preferred it.",))
    assert "judge" not in shown({})


def test_rows_left_out_and_cut_off_are_lines_of_the_outcome():
    text = shown({"rows_too_long": 6, "rows_cut_off": 2})
    assert "6 training rows were too long and left out (training.max_length_tokens)" in text
    assert "2 training rows were too long and cut off (training.max_length_tokens)" in text


def test_nothing_is_said_where_no_row_was_too_long():
    assert "too long" not in shown({"rows_too_long": 0, "rows_cut_off": 0})
    assert long_row_lines({}) == []
