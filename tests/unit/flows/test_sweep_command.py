"""What `llm-retrain sweep` refuses, hands on and shows."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from rich.console import Console

from flows.cli import cli
from flows.terminal.sweep import render_sweep
from tasks.contracts.config import validate_config
from tasks.contracts.errors import ConfigError
from tasks.contracts.home import Home
from tasks.contracts.sweep_record import SweepRecord, TrialRecord

TRIALS = (
    TrialRecord(0, "finished", {"learning_rate": 5e-4, "rank": 8}, 2.25, 61.0, "", "run-0"),
    TrialRecord(1, "failed", {"learning_rate": 0.1, "rank": 8}, None, 9.0, "the loss at step 3 is nan", "run-1"),
    TrialRecord(2, "finished", {"learning_rate": 1.25e-3, "rank": 16}, 2.125, 60.0, "", "run-2"),
)
RECORD = SweepRecord("assistant-1", "parent", "1", "all 3 trials (sweep.trials) have ended", TRIALS, {"rank": 0.75})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["sweep.trials=3"], r"sweep\.space is empty"),
        (["sweep.space={rank: [4, 8]}"], r"training\.validation_rows is 0"),
        (["sweep.space={rnak: [4, 8]}"], r"did you mean rank\?"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_starts(overrides, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(tmp_path / "home"))
    arguments = [part for override in overrides for part in ("--set", override)]
    with pytest.raises(ConfigError, match=sentence):
        CliRunner().invoke(cli, ["sweep", *arguments], catch_exceptions=False)
    assert not (tmp_path / "home" / "store").exists()


def test_the_table_has_the_best_trial_first_and_says_why_others_are_not():
    console = Console(width=140, record=True, file=None, quiet=False)
    with console.capture() as captured:
        render_sweep(console, RECORD)
    shown = captured.get()
    rows = [line for line in shown.splitlines() if "finished" in line or "failed" in line]
    assert [row.split("│")[1].strip() for row in rows] == ["2", "0", "1"]
    assert "2.125" in rows[0] and "0.00125" in rows[0] and "16" in rows[0]
    assert "the loss at step 3 is nan" in rows[2]
    assert "rank 0.75" in shown and "all 3 trials (sweep.trials) have ended" in shown


def test_the_best_settings_go_through_the_line_and_the_version_names_the_sweep(monkeypatch, tmp_path):
    from flows import sweep as flow

    walked, tagged = [], []
    monkeypatch.setattr(flow, "find_or_train", lambda *told: walked.append(told) or SimpleNamespace(version=7))
    monkeypatch.setattr(flow, "tag_version", lambda registry, *told: tagged.append(told))
    config = validate_config({"training": {"validation_rows": 8, "alpha": 5}, "sweep": {"space": {"rank": [8, 16]}}})
    home = Home(tmp_path)
    assert flow.judge_best(RECORD, config, home, "why").version == 7
    ((best, _, reason, tags),) = walked
    assert (best.training.rank, best.training.learning_rate) == (16, 1.25e-3)
    assert (best.training.alpha, best.training.validation_rows) == (5, 8)
    assert (reason, tags) == ("why", {"llm_retrain.sweep": "parent"})
    assert tagged == [(7, "parent", home)]
