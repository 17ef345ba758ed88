"""Anchor and recent set: from the answers into report, verdict, page, log and MLflow; and when they disagree."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from steady_systems import STEADY

from tasks.contracts.artifacts import Difference, EvalReport, Interval, Part, Predictions
from tasks.contracts.config import RetrainConfig
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.evaluation import steps
from tasks.evaluation.gate import decide
from tasks.evaluation.generation_process import record_of
from tasks.evaluation.report import build_report
from tasks.evaluation.review.page import Background, render_page
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import SideBySide
from tasks.evaluation.significance import expanded, gap

EVALUATION = EvaluationSection(resamples=200, randomisations=1_000)
ROWS = 60
BETTER = Difference(0.10, 0.06, 0.14, p_better=0.0001, p_worse=1.0)
OTHERWISE = Difference(-0.02, -0.06, 0.02, p_better=0.8, p_worse=0.2)
FINE = {"rougeL": BETTER, "bleu": BETTER, "chrf": BETTER}


def answer_line(n, text, sets=True):
    return {
        "id": f"{n:064x}",
        "slice": "code",
        **({"set": "anchor" if n % 3 else "recent"} if sets else {}),
        "messages": [{"role": "user", "content": f"What does function number {n} do?"}],
        "reference": f"Return item number {n} of the list.",
        "answer": text,
        **({"again": text, "seconds": 0.5} if n < 8 else {}),
    }


def report_in(tmp_path, candidate, sets=True):
    """Build the report of a base that says nothing useful, and of a candidate."""
    store = Store(tmp_path / "store")
    answers = {"base": lambda n: "It depends.", "candidate": candidate}
    found = {}
    for system, said in answers.items():

        def write(out, said=said):
            lines = [answer_line(n, said(n), sets) for n in range(ROWS)]
            return {"rows": write_jsonl(out / "predictions.jsonl", lines)}

        entry = store.produce("predictions", {"system": system}, write)
        found[system] = Predictions(entry.path, entry.digest, ROWS, 1.0)
    return build_report(found, EVALUATION, store)


def right(n):
    return f"Return item {n} of the list."


def right_on_anchor(n):
    return right(n) if n % 3 else f"Nothing known of {n}."


def with_sets(anchor=BETTER, recent=BETTER, rows=(40, 30)):
    parts = {
        name: Part(count, {}, {"base": {"rougeL": seen}})
        for name, count, seen in zip(("anchor", "recent"), rows, (anchor, recent), strict=True)
        if count
    }
    return EvalReport(Path("/nowhere"), "", 70, {}, {"base": FINE}, {}, sets=parts, served=STEADY)


def finding_of(report, **gate):
    decision = decide(report, GateSection(**gate), has_champion=False)
    return decision, next((each for each in decision.findings if each.rule == "sets agree"), None)


def test_a_prediction_has_the_set_of_its_row():
    row = {
        "id": "0",
        "slice": "s",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}],
    }
    answer = SimpleNamespace(text="a", new_tokens=1, finish_reason="stop")
    assert record_of({**row, "set": "recent"}, answer, None)["set"] == "recent"
    assert "set" not in record_of(row, answer, None)


def test_the_sets_of_the_answers_are_in_the_report_each_as_if_it_were_alone(tmp_path):
    report = report_in(tmp_path, right)
    assert {name: part.examples for name, part in report.sets.items()} == {"anchor": 40, "recent": 20}
    places = [n for n in range(ROWS) if n % 3 == 0]
    alone = SideBySide(
        [],
        [],
        [f"Return item number {n} of the list." for n in places],
        {"base": ["It depends."] * len(places), "candidate": [right(n) for n in places]},
    )
    scored = score_systems(alone, EVALUATION)
    assert report.sets["recent"] == Part(20, scored.scores, scored.differences)
    kept = list(read_jsonl(report.path / "predictions.jsonl"))
    assert [row["set"] for row in kept[:3]] == ["recent", "anchor", "anchor"]


def test_rows_of_no_set_leave_report_and_gate_as_they_were(tmp_path):
    report = report_in(tmp_path, right, sets=False)
    assert report.sets == {}
    assert all("set" not in row for row in read_jsonl(report.path / "predictions.jsonl"))
    decision, finding = finding_of(report)
    assert (decision.verdict, finding) == ("promote", None)


def test_sets_that_agree_let_a_candidate_be_promoted(tmp_path):
    decision, finding = finding_of(report_in(tmp_path, right))
    assert decision.verdict == "promote"
    assert finding.outcome == "passed"
    assert "on the anchor set (40 rows)" in finding.sentence
    assert "on the recent set (20 rows)" in finding.sentence


def test_sets_that_disagree_are_an_alarm_that_lets_nothing_be_promoted(tmp_path):
    report = report_in(tmp_path, right_on_anchor)
    assert report.differences["base"]["rougeL"].low > 0, "of all rows it would be better"
    decision, finding = finding_of(report)
    assert (decision.verdict, finding.outcome) == ("inconclusive", "open")
    assert "the sets disagree" in finding.sentence
    assert finding.sentence in decision.reasons
    assert finding.figures["value"] == pytest.approx(finding.figures["recent"] - finding.figures["anchor"])
    assert finding.figures["high"] < 0


@pytest.mark.parametrize(("anchor", "recent"), [(BETTER, OTHERWISE), (OTHERWISE, BETTER)])
def test_either_direction_is_an_alarm(anchor, recent):
    decision, finding = finding_of(with_sets(anchor, recent))
    assert (decision.verdict, finding.outcome) == ("inconclusive", "open")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((40, 19), "Of the recent set 19 rows were evaluated"),
        ((40, 0), "Of the recent set 0 rows were evaluated"),
        ((0, 40), "Of the anchor set 0 rows were evaluated"),
    ],
)
def test_a_set_with_too_few_rows_leaves_it_open_and_says_so(rows, said):
    decision, finding = finding_of(with_sets(rows=rows))
    assert (decision.verdict, finding.outcome) == ("inconclusive", "open")
    assert finding.sentence.startswith(said)
    assert "gate.min_slice_examples" in finding.sentence
    assert finding_of(with_sets(rows=(40, 19)), min_slice_examples=19)[0].verdict == "promote"


def test_a_gain_that_is_no_number_does_not_agree():
    broken = Difference(math.nan, math.nan, math.nan, 0.1, 0.1)
    assert finding_of(with_sets(recent=broken))[1].outcome == "open"


def test_less_of_a_metric_that_is_better_low_is_a_gain():
    fewer = Difference(-0.10, -0.14, -0.06, p_better=1.0, p_worse=0.0001)
    part = Part(40, {}, {"base": {"repetition": fewer}})
    report = EvalReport(
        Path("/nowhere"), "", 80, {}, {"base": {"repetition": fewer}}, {}, sets={"anchor": part, "recent": part}
    )
    gate = {"primary_metric": "repetition", "guarded_metrics": ()}
    assert finding_of(report, **gate)[1].figures["anchor"] == pytest.approx(0.10)


def test_the_gap_of_two_proportions_is_that_of_newcombes_tenth_method():
    """56 of 70 against 48 of 80, from Wilson's intervals: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""

    def wilson(count, of):
        z, share = 1.959964, count / of
        middle, half = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
        return Interval(share, (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of))

    found = gap(wilson(48, 80), wilson(56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(("examples", "t"), [(10, 2.26216), (20, 2.09302), (64, 1.99834), (10_000, 1.96020)])
def test_an_interval_of_few_rows_is_as_wide_as_students_quantile_says(examples, t):
    """Quantiles of tables; the normal one is 1.95996."""
    outside = expanded(Interval(-0.06, -0.021, 0.1), examples, 0.95)
    assert outside.low <= -0.06 and outside.high > 0.1, "never narrower than it was"
    found = expanded(Interval(1.0, 0.0, 3.0), examples, 0.95)
    factor = t / 1.95996 * math.sqrt(examples / (examples - 1))
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1 - factor, 1 + 2 * factor), abs=2e-3)


def test_the_alarm_is_a_warning_in_the_log(tmp_path, caplog):
    report = report_in(tmp_path, right_on_anchor)
    with caplog.at_level(logging.WARNING, "llm_retrain.evaluation"):
        steps.decide.fn(report, RetrainConfig(), False)
    assert "sets agree: rougeL gains" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "llm_retrain.evaluation"):
        steps.decide.fn(report_in(tmp_path / "other", right), RetrainConfig(), False)
    assert "sets agree" not in caplog.text


def test_the_page_shows_each_set(tmp_path):
    report = report_in(tmp_path, right_on_anchor)
    decision = decide(report, GateSection(), has_champion=False)
    rows = list(read_jsonl(report.path / "predictions.jsonl"))
    page = render_page(report, decision, "rougeL", rows, Background("assistant", None, [], [], [], []))
    assert "<h2>rougeL by set</h2>" in page
    assert "anchor (40)" in page
    assert "recent (20)" in page
    assert "the sets disagree" in page
