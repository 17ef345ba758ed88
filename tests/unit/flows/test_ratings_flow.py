"""Sheets of registered versions on a real MLflow: out, filled in, back, and where people see what came of it."""

import csv
import io
import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from registered_versions import CONFIG, EVALUATION, GOOD, POOR, ROWS, TRAINING, Registry, row_of
from rich.console import Console

from flows.cli import cli
from flows.comparison import compare_versions
from flows.ratings import export_sheet, pairs_to_rate, read_sheet
from flows.terminal.outcome import render_history
from flows.terminal.overview import version_lines
from tasks.contracts.errors import EvaluationError, RegistryError
from tasks.contracts.jsonl import read_jsonl
from tasks.registry.ledger import append_to_ledger
from tasks.registry.people import preferences_by_people
from tasks.registry.versions import find_version


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Version 1 answers poorly, 2 well; 3 has other evaluation rows; 4 was trained on a row that 1 answered."""
    registry = Registry(tmp_path_factory.mktemp("ratings"))
    registry.register("one", POOR, TRAINING, EVALUATION)
    registry.register("two", GOOD, TRAINING, EVALUATION, champion_before="1")
    registry.register("three", GOOD, TRAINING, EVALUATION[:8])
    registry.register("four", GOOD, [*TRAINING, row_of(3, "learned")], EVALUATION)
    return registry


@pytest.fixture
def registry(made, monkeypatch, tmp_path):
    """The same, whose ratings a test has for itself."""
    monkeypatch.setattr(type(made.home), "ratings", property(lambda _: tmp_path / "kept"))
    return made


def export(registry, out, number=2, against=None, rows=50):
    return export_sheet(number, against, rows, out, CONFIG, registry.home)


def fill(path, choose):
    """Fill a sheet in, as a person would who sees nothing else."""
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    for row in rows:
        row["preference"] = choose(row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def likes_good(row):
    return "A" if "Return item" in row["answer A"] else "B"


def test_a_sheet_goes_out_and_what_comes_back_is_kept_with_the_version(registry, tmp_path):
    exported = export(registry, tmp_path / "sheet.csv")
    assert (exported.baseline, exported.rows, exported.identical) == ("base", ROWS, 0)
    counted = read_sheet(fill(exported.path, likes_good), " Ann ", CONFIG, registry.home)
    assert (counted.version, counted.by, counted.rated, counted.unrated) == (2, "Ann", ROWS, 0)
    found = counted.preference
    assert (found.wins, found.losses, found.share.value, found.baseline) == (ROWS, 0, 1.0, "base")
    version = find_version(CONFIG.registry, 2, registry.home)
    assert preferences_by_people(version) == (found,)
    run = registry.client.get_run(version.run_id)
    assert run.data.metrics["people/candidate_vs_base/share"] == 1.0
    assert run.data.metrics["people/candidate_vs_base/p_better"] == pytest.approx(0.5**ROWS)
    path = Path(registry.client.download_artifacts(version.run_id, "people/against-base.json", str(tmp_path)))
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["wins"] == ROWS and set(kept["ratings"]["Ann"].values()) == {"candidate"}


def test_two_people_are_counted_together_and_one_again_replaces_only_his_own(registry, tmp_path):
    sheet = export(registry, tmp_path / "sheet.csv").path
    read_sheet(fill(sheet, likes_good), "Ann", CONFIG, registry.home)
    both = read_sheet(fill(sheet, lambda row: "tie" if row["row"] == "1" else ""), "Ben", CONFIG, registry.home)
    assert (both.rated, both.unrated) == (1, ROWS - 1)
    assert (both.preference.by, both.preference.wins, both.preference.share.value) == (
        ("Ann", "Ben"),
        ROWS,
        pytest.approx((ROWS - 1 + 0.75) / ROWS),
    )
    assert both.preference.agreement == 0.0
    again = read_sheet(fill(sheet, lambda row: "AB"[likes_good(row) == "A"]), "Ann", CONFIG, registry.home)
    assert (again.preference.wins, again.preference.losses) == (0, ROWS)
    assert len(preferences_by_people(find_version(CONFIG.registry, 2, registry.home))) == 1


def test_lists_comparisons_and_promotions_show_what_people_prefer(registry, tmp_path, monkeypatch):
    read_sheet(fill(export(registry, tmp_path / "sheet.csv").path, likes_good), "Ann", CONFIG, registry.home)
    said = f"People (Ann) preferred the candidate to base on {ROWS} of {ROWS} rows"
    lines = version_lines(CONFIG, registry.home)
    assert [len(line["preferred"]) for line in lines if line["version"] in (1, 2)] == [1, 0]
    append_to_ledger(registry.home, "refused", "assistant", None, 1, "no")
    assert [line["overruled"] for line in version_lines(CONFIG, registry.home)][-1:] == ["refused"]
    console = Console(width=200)
    with console.capture() as captured:
        render_history(console, lines, [], "rougeL")
    assert f"Version 2: {said}" in captured.get()
    assert said in compare_versions(1, 2, CONFIG, registry.home)["versions"][1]["preferred"][0]
    from flows import promote as promotion

    monkeypatch.setenv("LLM_RETRAIN_HOME", str(registry.home.root))
    monkeypatch.setattr(promotion, "record_log_lines", lambda: None)
    monkeypatch.setattr(promotion, "roll_out", lambda *_: "rolled out")
    monkeypatch.setattr(promotion, "settle", lambda *_: {})
    told = []
    monkeypatch.setattr(promotion.log, "info", lambda text, *values: told.append(text % values))
    assert promotion.promote.fn(2, "r", CONFIG) == "rolled out"
    assert len(told) == 1 and told[0].startswith(f"Version 2: {said}")


def test_the_form_of_an_approval_says_what_people_prefer_as_text(registry, tmp_path):
    from flows.approve import _introduction

    read_sheet(fill(export(registry, tmp_path / "sheet.csv").path, likes_good), "<b>*Ann*", CONFIG, registry.home)
    version = find_version(CONFIG.registry, 2, registry.home)
    asked = SimpleNamespace(version=2, champion=1, expires="2026-11-23T00:00", servable="s", report="r", review="v")
    shown = _introduction(asked, "# Verdict: promote", version)
    assert f"preferred the candidate to base on {ROWS} of {ROWS} rows" in shown
    assert "<b>" not in shown and "*Ann*" not in shown.replace("\\*", "")
    others = find_version(CONFIG.registry, 1, registry.home)
    assert "People" not in _introduction(asked, "# Verdict: promote", others)


def test_the_other_answers_may_be_those_of_another_version_on_the_same_rows(registry, tmp_path):
    exported = export(registry, tmp_path / "sheet.csv", number=1, against="2")
    assert exported.baseline == "version 2"
    found = read_sheet(fill(exported.path, likes_good), "Ann", CONFIG, registry.home).preference
    assert (found.wins, found.losses, found.baseline) == (0, ROWS, "version 2")
    assert export(registry, tmp_path / "again.csv", number=2, against="base").baseline == "base"


def test_the_champion_s_answers_are_those_of_the_report_that_judged_it(registry):
    version = find_version(CONFIG.registry, 2, registry.home)
    version.tags["baseline"] = "champion"
    lines = [
        {**line, "champion": f"it was {line['base']}"} for line in read_jsonl(version.report_path / "predictions.jsonl")
    ]
    with patch("flows.ratings.read_jsonl", return_value=lines):
        name, pairs = pairs_to_rate(version, None, CONFIG, registry.home)
        assert pairs_to_rate(version, "base", CONFIG, registry.home)[1][0].baseline == lines[0]["base"]
    assert name == "version 1"
    assert [pair.baseline for pair in pairs] == [line["champion"] for line in lines]


def test_rows_that_either_was_trained_on_are_not_rated(registry, tmp_path):
    assert export(registry, tmp_path / "sheet.csv", number=4, against="1").rows == ROWS - 1


@pytest.mark.parametrize(
    ("number", "against", "error", "sentence"),
    [
        (2, "2", EvaluationError, "--against is '2'; expected base, or the number of another version"),
        (2, "best", EvaluationError, "--against is 'best'"),
        (2, "3", EvaluationError, "version 2 and version 3 did not answer the same rows"),
        (2, "9", RegistryError, "version 9 of 'assistant' is not in MLflow"),
        (9, None, RegistryError, "version 9 of 'assistant' is not in MLflow"),
        (2, "4", EvaluationError, "both answer all 11 rows alike"),
    ],
)
def test_what_cannot_be_rated_is_said_and_leaves_no_file(number, against, error, sentence, registry, tmp_path):
    with pytest.raises(error, match=sentence):
        export(registry, tmp_path / "sheet.csv", number, against)
    assert not (tmp_path / "sheet.csv").exists() and not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["sheet.xlsx", "sheet", "taken.csv"])
def test_a_sheet_overwrites_nothing_and_is_csv_or_html(name, registry, tmp_path):
    (tmp_path / "taken.csv").write_text("mine")
    with pytest.raises(EvaluationError, match=r"expected a file that ends in \.csv or \.html|which exists already"):
        export(registry, tmp_path / name)
    assert (tmp_path / "taken.csv").read_text() == "mine"
    with pytest.raises(EvaluationError, match="cannot be written"):
        export(registry, tmp_path / "nowhere" / "sheet.csv")


def test_lost_answers_are_said(registry, tmp_path):
    version = find_version(CONFIG.registry, 2, registry.home)
    aside = version.report_path.rename(tmp_path / "aside")
    try:
        with pytest.raises(RegistryError, match=r"version 2 cannot be rated: .* is lost or damaged"):
            export(registry, tmp_path / "sheet.csv")
    finally:
        shutil.move(aside, version.report_path)


def test_a_sheet_without_a_rating_of_another_home_or_model_is_refused(registry, tmp_path, monkeypatch):
    sheet = export(registry, tmp_path / "sheet.csv").path
    with pytest.raises(EvaluationError, match="holds no rating; expected A, B or tie"):
        read_sheet(sheet, "Ann", CONFIG, registry.home)
    fill(sheet, likes_good)
    other = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"model_name": "other"})})
    with pytest.raises(EvaluationError, match=r"is about 'assistant', and registry\.model_name is 'other'"):
        read_sheet(sheet, "Ann", other, registry.home)
    key = next((tmp_path / "kept").glob("*/key.json"))
    key.write_text(key.read_text().replace('"servable_digest": "', '"servable_digest": "0'))
    with pytest.raises(RegistryError, match=r"version 2 is not the one that sheet\.csv was exported for"):
        read_sheet(sheet, "Ann", CONFIG, registry.home)
    monkeypatch.setattr(type(registry.home), "ratings", property(lambda _: tmp_path / "another"))
    with pytest.raises(EvaluationError, match="column 'sheet'"):
        read_sheet(sheet, "Ann", CONFIG, registry.home)


def test_the_commands_export_and_read_a_page(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(registry.home.root))
    page, answers, level = tmp_path / "sheet.html", tmp_path / "ratings.json", logging.getLogger("llm_retrain").level
    with patch.dict(os.environ):
        exported = CliRunner().invoke(cli, ["ratings", "export", "2", "--rows", "5", "--out", str(page), "--json"])
        assert exported.exit_code == 0, exported.output
        assert json.loads(exported.stdout) == {"path": str(page), "baseline": "base", "rows": 5, "identical": 0}
        sheet = page.read_text().partition('data-sheet="')[2][:16]
        answers.write_text(json.dumps({"sheet": sheet, "ratings": [{"row": 1, "preference": "tie", "remark": ""}]}))
        read = CliRunner().invoke(cli, ["ratings", "read", str(answers), "--by", "Ann"])
        facts = CliRunner().invoke(cli, ["ratings", "read", str(answers), "--by", "Ann", "--json"])
    assert logging.getLogger("llm_retrain").level == level, "a command in one's own process leaves the log as it was"
    assert read.exit_code == 0, read.output
    assert "Ann rated 1 rows of version 2 and left 4 out." in read.output
    assert "People (Ann) preferred the candidate to base on 0 of 1 rows, lost 0, 1 ties" in read.output
    assert json.loads(facts.stdout)["preference"]["ties"] == 1


def test_a_tag_that_is_no_preference_hides_nothing_else(registry, tmp_path, caplog):
    version = find_version(CONFIG.registry, 2, registry.home)
    version.tags.update({"preferred_by_people.a": "{", "preferred_by_people.b": '{"kind": "people"}'})
    assert len(preferences_by_people(version)) == len([tag for tag in version.tags if tag.endswith(".base")])
    assert caplog.text.count("that is no preference") == 2
