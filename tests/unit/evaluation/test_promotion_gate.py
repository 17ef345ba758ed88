import math
from pathlib import Path

import pytest

from tasks.contracts.artifacts import EvalReport, Interval
from tasks.contracts.config import GateSection
from tasks.evaluation.gate import decide, examples_needed

BETTER = Interval(0.10, 0.06, 0.14)
TIE = Interval(0.0, 0.0, 0.0)
UNSURE = Interval(0.02, -0.02, 0.06)
SLIGHTLY_DOWN = Interval(-0.02, -0.06, 0.02)
WORSE = Interval(-0.10, -0.14, -0.06)
NOT_A_NUMBER = Interval(0.1, math.nan, 0.2)
INFINITE = Interval(0.1, 0.05, math.inf)
UPSIDE_DOWN = Interval(0.1, 0.2, 0.05)


def against(primary, bleu=BETTER, chrf=BETTER):
    return {"rougeL": primary, "bleu": bleu, "chrf": chrf}


def report_of(examples=64, **differences):
    return EvalReport(Path("/nowhere"), "digest", examples, {}, differences, {})


CASES = {
    "a clear improvement on the base model": ({"base": against(BETTER)}, "promote"),
    "a clear improvement on champion and base": ({"base": against(BETTER), "champion": against(BETTER)}, "promote"),
    "a guarded metric slightly down": ({"base": against(BETTER, bleu=SLIGHTLY_DOWN)}, "promote"),
    "a base comparison that is unsure": ({"base": against(UNSURE), "champion": against(BETTER)}, "promote"),
    "guarded metrics worse than base, not than champion": (
        {"base": against(BETTER, bleu=WORSE), "champion": against(BETTER)},
        "promote",
    ),
    "a significantly worse primary metric": ({"base": against(WORSE)}, "reject"),
    "worse than the champion, better than base": ({"base": against(BETTER), "champion": against(WORSE)}, "reject"),
    "a guarded metric significantly worse": ({"base": against(BETTER, chrf=WORSE)}, "reject"),
    "a guarded metric worse and an unsure primary": ({"base": against(UNSURE, bleu=WORSE)}, "reject"),
    "better than the champion, worse than base": ({"base": against(WORSE), "champion": against(BETTER)}, "reject"),
    "a tie": ({"base": against(TIE, TIE, TIE)}, "inconclusive"),
    "an interval that begins at zero": ({"base": against(Interval(0.1, 0.0, 0.2))}, "inconclusive"),
    "an interval that ends at zero": ({"base": against(Interval(-0.1, -0.2, 0.0))}, "inconclusive"),
    "an unsure improvement": ({"base": against(UNSURE)}, "inconclusive"),
    "an unsure loss": ({"base": against(SLIGHTLY_DOWN)}, "inconclusive"),
    "no comparison at all": ({}, "inconclusive"),
    "no primary metric": ({"base": {"bleu": BETTER, "chrf": BETTER}}, "inconclusive"),
    "no guarded metric": ({"base": {"rougeL": BETTER, "bleu": BETTER}}, "inconclusive"),
    "no comparison with base": ({"champion": against(BETTER)}, "inconclusive"),
    "NaN in the primary metric": ({"base": against(NOT_A_NUMBER)}, "inconclusive"),
    "NaN in a guarded metric": ({"base": against(BETTER, bleu=NOT_A_NUMBER)}, "inconclusive"),
    "infinity in the primary metric": ({"base": against(INFINITE)}, "inconclusive"),
    "an interval upside down": ({"base": against(UPSIDE_DOWN)}, "inconclusive"),
    "NaN against base": ({"base": against(NOT_A_NUMBER), "champion": against(BETTER)}, "inconclusive"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_on(case):
    differences, verdict = CASES[case]
    has_champion = "champion" in differences
    decision = decide(report_of(**differences), GateSection(), has_champion)
    assert decision.verdict == verdict
    assert decision.baseline == ("champion" if has_champion else "base")
    assert decision.reasons
    assert all(reason.endswith(".") for reason in decision.reasons)


def test_a_missing_champion_comparison_is_not_replaced_by_base():
    decision = decide(report_of(examples=30, base=against(BETTER)), GateSection(), has_champion=True)
    assert decision.verdict == "inconclusive"
    assert decision.examples_needed is None
    assert "The report holds no difference of rougeL against champion." in decision.reasons


@pytest.mark.parametrize("primary", [BETTER, WORSE])
def test_too_few_examples_decide_nothing_and_say_how_many_are_needed(primary):
    decision = decide(report_of(examples=29, base=against(primary)), GateSection(), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert decision.examples_needed == 30
    assert decision.reasons == ("29 rows were evaluated; expected at least 30 (gate.min_examples).",)


def test_the_smallest_number_of_examples_is_enough():
    decision = decide(report_of(examples=30, base=against(BETTER)), GateSection(), has_champion=False)
    assert decision.verdict == "promote"


def test_an_improvement_must_exceed_what_is_required():
    gate = GateSection(min_improvement=BETTER.low)
    assert decide(report_of(base=against(BETTER)), gate, has_champion=False).verdict == "inconclusive"
    gate = GateSection(min_improvement=BETTER.low - 0.001)
    assert decide(report_of(base=against(BETTER)), gate, has_champion=False).verdict == "promote"


def test_an_improvement_surely_too_small_is_inconclusive_and_says_so():
    decision = decide(report_of(base=against(BETTER)), GateSection(min_improvement=0.2), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert decision.examples_needed is None
    assert "ruled out" in decision.reasons[0]


def test_a_rejection_begins_with_what_is_worse_and_gives_its_figures():
    decision = decide(report_of(base=against(BETTER, chrf=WORSE)), GateSection(), has_champion=False)
    assert decision.reasons[0] == ("chrf changed by -0.1 against base, interval [-0.14, -0.06]: significantly worse.")
    assert len(decision.reasons) == 3


def test_an_inconclusive_decision_estimates_the_rows_that_would_decide():
    """The half width below 0.02 is 0.04: halving it takes four times the rows, and one more to pass."""
    decision = decide(report_of(base=against(UNSURE)), GateSection(), has_champion=False)
    assert decision.examples_needed == 4 * 64 + 1
    assert decision.reasons[-1].startswith("About 257 evaluated rows (64 now)")


def test_guarding_the_primary_metric_as_well_changes_nothing():
    gate = GateSection(guarded_metrics=("rougeL", "bleu"))
    decision = decide(report_of(base=against(BETTER)), gate, has_champion=False)
    assert decision.verdict == "promote"
    assert len(decision.reasons) == 2


@pytest.mark.parametrize(
    ("difference", "min_improvement", "expected"),
    [
        (Interval(0.02, 0.0, 0.04), 0.0, 65),
        (Interval(0.02, -0.02, 0.06), 0.01, 16 * 64 + 1),
        (TIE, 0.0, None),
        (SLIGHTLY_DOWN, 0.0, None),
        (Interval(0.02, -0.02, 0.06), 0.02, None),
        (Interval(0.001, 0.002, 0.003), 0.0, None),
        (Interval(1e-9, -1.0, 1.0), 0.0, 1_000_000),
    ],
)
def test_examples_needed_follows_the_square_root_law(difference, min_improvement, expected):
    needed = examples_needed(difference, 64, min_improvement)
    assert needed == expected or (expected and needed == pytest.approx(expected, abs=1))
