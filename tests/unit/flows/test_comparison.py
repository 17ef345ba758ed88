"""Two registered versions side by side: a real MLflow on sqlite, stored answers, reports and rows."""

import dataclasses
import json
import os
import shutil
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from registered_versions import CONFIG, EVALUATION, GOOD, METRICS, POOR, ROWS, TRAINING, Registry, row_of
from rich.console import Console

from flows.cli import cli
from flows.terminal.comparison import render_comparison
from tasks.contracts.artifacts import Predictions
from tasks.contracts.errors import RegistryError
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import read_side_by_side
from tasks.registry.aliases import write_aliases
from tasks.registry.ledger import append_to_ledger
from tasks.registry.versions import find_version


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Version 1 answers poorly; 2 and 3 well, 3 on other evaluation rows; 2 replaced 1 as champion."""
    registry = Registry(tmp_path_factory.mktemp("comparison"))
    registry.register("one", POOR, TRAINING, EVALUATION)
    changed = [row_of(0, "Another answer.", "class"), *TRAINING[1:], *(row_of(each, topic="module") for each in (1, 2))]
    registry.register("two", GOOD, changed, EVALUATION, champion_before="1", rank=16)
    registry.register("three", GOOD, TRAINING, EVALUATION[:8], champion_before="2")
    append_to_ledger(registry.home, "promoted", "assistant", None, 1, "test")
    append_to_ledger(registry.home, "promoted", "assistant", 1, 2, "test")
    write_aliases(CONFIG.registry, registry.home, {"champion": 2, "previous": 1})
    return registry


@pytest.fixture
def own_registry(tmp_path):
    """One whose files a test may take away."""
    registry = Registry(tmp_path)
    registry.register("one", POOR, TRAINING, EVALUATION)
    registry.register("two", GOOD, TRAINING[1:], EVALUATION)
    return registry


def shown(facts):
    console = Console(width=160)
    with console.capture() as captured:
        render_comparison(console, facts)
    return captured.get()


def test_two_versions_stand_side_by_side_with_verdicts_moves_scores_and_sizes(registry):
    one, two = registry.compare(1, 2)["versions"]
    assert (one["aliases"], two["aliases"]) == (["previous"], ["champion"])
    assert (one["verdict"], two["champion_before"], two["engine"]) == ("promote", "1", "onnx")
    assert len(one["became_champion"]) == len(two["became_champion"]) == 1
    assert two["registered_at"].startswith("20") and two["registered_at"] >= one["registered_at"]
    assert (one["train_rows"], two["train_rows"], one["eval_rows"]) == (20, 22, ROWS)
    assert (two["servable_bytes"], two["median_seconds"]) == (40_000_000, 0.25)
    low, value, high = (two["scores"]["chrf"][end] for end in ("low", "value", "high"))
    assert low <= value <= high
    assert value > one["scores"]["chrf"]["high"]


def test_the_paired_comparison_is_the_second_minus_the_first_by_the_gates_statistics(registry):
    paired = registry.compare(1, 2)["paired"]
    answers = {}
    for system, number in (("base", 1), ("candidate", 2)):
        path = find_version(CONFIG.registry, number, registry.home).predictions_path
        answers[system] = Predictions(path, "", ROWS, 1.0)
    expected = score_systems(read_side_by_side(answers), CONFIG.evaluation)
    assert (paired["examples"], paired["left_out"], set(paired["differences"])) == (ROWS, 0, set(METRICS))
    for metric in METRICS:
        assert paired["differences"][metric] == dataclasses.asdict(expected.differences["base"][metric])
        assert paired["first"][metric] == dataclasses.asdict(expected.scores["base"][metric])
    assert paired["differences"]["chrf"]["low"] > 0, "the second is better"
    assert paired["p_values"]["chrf"] == pytest.approx(2 * paired["differences"]["chrf"]["p_better"] * 3), "Holm, of 3"
    assert paired["p_values"]["exact_match"] == 1.0, "no answer of either is the reference"
    backwards = registry.compare(2, 1)["paired"]["differences"]["chrf"]
    assert backwards["value"] == -paired["differences"]["chrf"]["value"]


def test_settings_and_rows_that_differ_are_named(registry):
    facts = registry.compare(1, 2)
    assert facts["settings"]["different"] == [{"key": "training.rank", "first": 8, "second": 16}]
    data = facts["data"]
    counts = {key: data[key] for key in ("same", "added", "removed", "changed", "moved", "in_both")}
    assert counts == {"same": False, "added": 2, "removed": 0, "changed": 1, "moved": 0, "in_both": 19 + ROWS}


def test_versions_that_were_evaluated_on_other_rows_are_not_compared_row_by_row(registry):
    facts = registry.compare(2, 3)
    assert facts["rows"]["same"] is False
    assert "evaluated on different rows: their scores cannot be compared row by row" in facts["rows"]["says"]
    assert "version 3 was judged against version 2 on rows of its own" in facts["rows"]["says"]
    assert facts["paired"] == {"missing": "they did not answer the same rows"}
    text = shown(facts)
    assert "cannot be compared row by row" in text
    assert "Row by row:" not in text


def test_a_person_reads_it_as_tables(registry):
    text = shown(registry.compare(1, 2))
    assert "Row by row: 12 rows, 95% intervals" in text
    assert "version 2 − version 1" in text
    assert "Both were evaluated on the same rows." in text
    assert "40.0 MB" in text and "0.25 s" in text
    assert "training.rank" in text
    assert "2 added, 0 removed, 1 answered otherwise" in text


@pytest.mark.parametrize("pair", [(1, 9), (9, 1)])
def test_a_version_that_does_not_exist_is_named(registry, pair):
    with pytest.raises(RegistryError, match="version 9 of 'assistant' is not in MLflow; see llm-retrain history"):
        registry.compare(*pair)


def test_rows_that_one_of_them_was_trained_on_are_left_out(own_registry):
    known = [row_of(3, "learned with another answer"), *TRAINING]
    own_registry.register("three", GOOD, known, EVALUATION)
    paired = own_registry.compare(1, 3)["paired"]
    assert (paired["examples"], paired["left_out"]) == (ROWS - 1, 1)


def test_what_is_lost_is_named_and_hides_nothing_else(own_registry):
    one, two = (find_version(CONFIG.registry, number, own_registry.home) for number in (1, 2))
    shutil.rmtree(one.dataset_path)
    facts = own_registry.compare(1, 2)
    assert facts["paired"]["rows_lost"] == [str(one.dataset_path / "train.jsonl")]
    assert facts["data"]["missing"] == "the rows of version 1 are lost (it has no readable manifest)"
    lines = list(read_jsonl(two.predictions_path / "predictions.jsonl"))
    write_jsonl(two.predictions_path / "predictions.jsonl", [{**lines[0], "answer": "forged"}, *lines[1:]])
    shutil.rmtree(one.report_path)
    own_registry.client.delete_run(one.run_id)
    shutil.rmtree(own_registry.home.mlflow_artifacts)
    facts = own_registry.compare(1, 2)
    assert "the answers of version 2 are lost or damaged" in facts["paired"]["missing"]
    assert facts["versions"][0]["scores"] is None
    assert facts["versions"][1]["scores"]["chrf"]["value"] > 0
    assert "the configuration of version 1 of 'assistant' is not in MLflow any more" in facts["settings"]["missing"]
    text = " ".join(shown(facts).split())
    assert "They cannot be compared row by row: the answers of version 2 are lost or damaged" in text
    assert "Settings cannot be compared" in text


def test_the_command_prints_the_comparison_for_people_and_for_scripts(registry, monkeypatch):
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(registry.home.root))
    with patch.dict(os.environ):
        for_people = CliRunner().invoke(cli, ["compare", "1", "2", "--set", "evaluation.resamples=200"])
        for_scripts = CliRunner().invoke(cli, ["compare", "1", "2", "--json"])
        unknown = CliRunner().invoke(cli, ["compare", "1", "9"])
    assert for_people.exit_code == 0, for_people.output
    assert "Row by row: 12 rows" in for_people.output
    assert "Downloading" not in for_people.stderr, "MLflow's own bars"
    facts = json.loads(for_scripts.stdout)
    assert [version["version"] for version in facts["versions"]] == [1, 2]
    assert facts["rows"]["same"] is True
    assert isinstance(unknown.exception, RegistryError)
