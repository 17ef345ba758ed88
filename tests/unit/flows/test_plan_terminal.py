"""What a person reads of a plan: parts, the verdict, and what would change it."""

import pytest
from rich.console import Console

from flows.commands.plan import render_plan

NO_ROWS = {"rows": 30, "rows_left_out": 0, "rows_cut_off": 0}
ADVICE = [
    {"key": "training.activation_checkpointing", "value": True, "total_bytes": 2e9, "seconds": 5_400.0, "fits": True},
    {"key": "training.method", "value": "qlora", "total_bytes": 9e9, "seconds": 20.0, "fits": False},
]
ADVICE = [{**NO_ROWS, **each} for each in ADVICE]
SHORTER = {**ADVICE[0], "key": "training.max_length_tokens", "value": 300, "rows_left_out": 3}


def shown(fits, may_fit, advice, width=120):
    facts = {
        "precision": "bfloat16",
        "device": "cpu",
        "trained_parameters": 1_000,
        "memory": {"process": 300_000_000, "weights": 4_000_000_000, "logits": 0},
        "loading_bytes": 4_200_000_000,
        "total_bytes": 4_300_000_000,
        "needed_bytes": 4_000_000_000,
        "free_bytes": 3_000_000_000,
        "fits": fits,
        "may_fit": may_fit,
        "rows": 30,
        "rows_too_long": 2,
        "rows_cut_off": 0,
        "largest_rows": 4,
        "largest_tokens": 512,
        "total_tokens": 61_440,
        "seconds": 600.0,
        "flops_per_second": 1e11,
        "advice": advice,
    }
    console = Console(width=width)
    with console.capture() as captured:
        render_plan(console, "lora", facts)
    return captured.get()


@pytest.mark.parametrize(
    ("fits", "may_fit", "verdict"),
    [(True, True, "It fits:"), (False, True, "It may not fit:"), (False, False, "It does not fit:")],
)
def test_the_verdict_knows_what_an_estimate_is_worth(fits, may_fit, verdict):
    text = shown(fits, may_fit, [])
    assert f"{verdict} 4.00 GB are needed beside the process itself, 3.00 GB are free." in text
    assert "weights, and what the method adds" in text and "logits" not in text
    assert "Rows: 30, 2 left out as too long" in text and "about 10 min" in text
    assert "What would change it" not in text


def test_advice_is_spelled_as_set_takes_it_with_what_it_would_need():
    text = shown(False, False, ADVICE)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "training." in line]
    assert lines == [
        ["training.activation_checkpointing=true", "2,000", "90 min", "yes"],
        ["training.method=qlora", "9,000", "20 s", "no"],
    ]


def test_a_setting_that_costs_rows_says_how_many():
    text = shown(False, False, [SHORTER])
    assert "training.max_length_tokens=300" in text and "3 of 30 rows left out" in text


def test_what_is_planned_is_one_line_on_a_terminal_of_80_columns():
    lines = shown(True, True, [], width=80).splitlines()
    assert lines[0] == "lora in bfloat16 on cpu, 1,000 trained numbers"
    assert "at the moment of the peak" in lines[2]
