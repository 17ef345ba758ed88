import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from steady_systems import STEADY

from tasks.contracts.artifacts import Difference, EvalReport, Interval, Memorised, Part, Served
from tasks.contracts.evaluation_config import GateSection
from tasks.evaluation.gate import decide, improvement
from tasks.evaluation.significance import examples_needed, holm

BETTER = Difference(0.10, 0.06, 0.14, p_better=0.0001, p_worse=1.0)
TIE = Difference(0.0, 0.0, 0.0, p_better=1.0, p_worse=1.0)
UNSURE = Difference(0.02, -0.02, 0.06, p_better=0.16, p_worse=0.84)
SLIGHTLY_DOWN = Difference(-0.02, -0.06, 0.02, p_better=0.84, p_worse=0.16)
WORSE = Difference(-0.10, -0.14, -0.06, p_better=1.0, p_worse=0.0001)
NOT_A_NUMBER = Difference(0.1, math.nan, 0.2, 0.01, 0.9)
INFINITE = Difference(0.1, 0.05, math.inf, 0.01, 0.9)
UPSIDE_DOWN = Difference(0.1, 0.2, 0.05, 0.01, 0.9)
NO_P_VALUE = Difference(0.1, 0.05, 0.15, math.nan, 0.9)
BARELY_WORSE = Difference(-0.1, -0.2, -0.001, p_better=0.98, p_worse=0.02)
"""Worse at the level of 0.025 if it is the only one that is looked at."""


def against(primary, bleu=BETTER, chrf=BETTER):
    return {"rougeL": primary, "bleu": bleu, "chrf": chrf}


def report_of(examples=64, more=MappingProxyType({}), **differences):
    return EvalReport(Path("/nowhere"), "digest", examples, {}, differences, {}, **{"served": STEADY, **more})


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
    "an interval that begins at zero": ({"base": against(Difference(0.1, 0.0, 0.2, 0.02, 0.98))}, "inconclusive"),
    "an interval that ends at zero": ({"base": against(Difference(-0.1, -0.2, 0.0, 0.98, 0.02))}, "inconclusive"),
    "an interval above zero whose p-value is not small": (
        {"base": against(Difference(0.1, 0.001, 0.2, 0.026, 0.97))},
        "inconclusive",
    ),
    "an interval below zero whose p-value is not small": (
        {"base": against(Difference(-0.1, -0.2, -0.001, 0.97, 0.026))},
        "inconclusive",
    ),
    "two guarded metrics that would each be worse alone": (
        {"base": against(BETTER, BARELY_WORSE, SLIGHTLY_DOWN)},
        "promote",
    ),
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
    "a p-value that is no number": ({"base": against(NO_P_VALUE)}, "inconclusive"),
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


@pytest.mark.parametrize(("below", "verdict"), [(0.0, "inconclusive"), (0.001, "inconclusive"), (0.002, "promote")])
def test_an_improvement_must_exceed_what_is_required(below, verdict):
    """On 64 rows the lower half width of 0.04 counts as 0.0411."""
    gate = GateSection(min_improvement=BETTER.low - below)
    decision = decide(report_of(base=against(BETTER)), gate, has_champion=False)
    assert decision.verdict == verdict
    assert decision.findings[0].figures["low"] == pytest.approx(0.0589, abs=5e-5)


def test_an_improvement_surely_too_small_is_inconclusive_and_says_so():
    decision = decide(report_of(base=against(BETTER)), GateSection(min_improvement=0.2), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert decision.examples_needed is None
    assert "ruled out" in decision.reasons[0]


def test_a_rejection_begins_with_what_is_worse_and_gives_its_figures():
    decision = decide(report_of(base=against(BETTER, chrf=WORSE)), GateSection(), has_champion=False)
    assert decision.reasons[0] == (
        "chrf changed by -0.1 against base, interval [-0.14, -0.06], p of a loss < 0.001: significantly worse."
    )
    assert len(decision.reasons) == 3


def test_an_inconclusive_decision_estimates_the_rows_that_would_decide():
    """The half width below 0.02 is 0.04. To see 0.02 four times in five it may be 0.02 * 1.96 / 2.80 = 0.014."""
    decision = decide(report_of(base=against(UNSURE)), GateSection(), has_champion=False)
    assert decision.examples_needed == pytest.approx(64 * (0.04 / 0.014) ** 2, rel=0.01)
    assert decision.reasons[-1].startswith(f"About {decision.examples_needed} evaluated rows (64 now) would show it")


def test_one_guarded_metric_alone_is_judged_without_correction():
    gate = GateSection(guarded_metrics=("bleu",))
    assert decide(report_of(base=against(BETTER, BARELY_WORSE)), gate, has_champion=False).verdict == "reject"


def test_a_metric_that_is_better_the_lower_it_is_counts_the_other_way():
    gate = GateSection(primary_metric="perplexity", guarded_metrics=())
    for seen, verdict in ((WORSE, "promote"), (BETTER, "reject"), (UNSURE, "inconclusive")):
        decision = decide(report_of(base={"perplexity": seen}), gate, has_champion=False)
        assert decision.verdict == verdict
        assert f"perplexity changed by {seen.value:+.4g}" in decision.reasons[0]
    gained = improvement("perplexity", WORSE)
    assert (gained.value, gained.low, gained.high) == (0.10, 0.06, 0.14)
    assert (gained.p_better, gained.p_worse) == (WORSE.p_worse, WORSE.p_better)


def test_rows_that_the_candidate_was_trained_on_reject_it_however_good_it_looks():
    decision = decide(report_of(base=against(BETTER), more={"leaked_rows": 1}), GateSection(), has_champion=False)
    assert decision.verdict == "reject"
    assert decision.reasons[0] == "1 of 64 evaluated rows have a prompt that the candidate was trained on."


@pytest.mark.parametrize(("extracted", "verdict"), [(0, "promote"), (1, "reject")])
def test_a_canary_that_comes_out_rejects_however_good_the_candidate_is(extracted, verdict):
    found = Memorised(4, extracted, (0.0, 1.0, 5.0, 2.5))
    decision = decide(report_of(base=against(BETTER), more={"memorised": found}), GateSection(), has_champion=False)
    assert decision.verdict == verdict
    said = f"{extracted} of 4 canaries of the training came out of the candidate; the most exposed by 5.0 of 5 bits."
    assert said in decision.reasons


SLICES = {
    "a small loss that is ruled out to be more": (Difference(0.0, -0.01, 0.01, 0.5, 0.5), 20, "promote"),
    "a loss that may be larger than the margin": (Difference(0.0, -0.03, 0.03, 0.5, 0.5), 20, "inconclusive"),
    "a loss surely larger than the margin": (WORSE, 20, "reject"),
    "an interval that begins at the margin": (Difference(0.0, -0.02, 0.02, 0.5, 0.5), 20, "inconclusive"),
    "an interval that 20 rows make wider than the margin": (
        Difference(0.0, -0.019, 0.02, 0.5, 0.5),
        20,
        "inconclusive",
    ),
    "the same interval of more rows": (Difference(0.0, -0.019, 0.02, 0.5, 0.5), 60, "promote"),
    "too few rows": (BETTER, 19, "inconclusive"),
}


@pytest.mark.parametrize("case", SLICES)
def test_a_protected_slice_with(case):
    seen, rows, verdict = SLICES[case]
    slices = {"legal": Part(rows, {}, {"base": {"rougeL": seen}}), "other": Part(50, {}, {"base": {"rougeL": WORSE}})}
    report = report_of(base=against(BETTER), more={"slices": slices})
    decision = decide(report, GateSection(protected_slices=("legal",)), has_champion=False)
    assert decision.verdict == verdict
    assert any("'legal'" in reason for reason in decision.reasons)
    assert not any("'other'" in reason for reason in decision.reasons)


def test_a_protected_slice_that_was_not_evaluated_lets_nothing_be_promoted():
    decision = decide(report_of(base=against(BETTER)), GateSection(protected_slices=("legal",)), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert "Of the protected slice 'legal' 0 rows were evaluated" in decision.reasons[0]
    assert not any("would show it" in reason for reason in decision.reasons)


def served(changed=0, low=0.0, high=0.0, seconds=1.0, size=100_000_000):
    """A system that answered some of eight rows otherwise when it was asked again."""
    noise = {"rougeL": Interval((low + high) / 2, low, high)} if changed else {}
    return Served(size, seconds, seconds, 8, changed, noise)


@pytest.mark.parametrize(
    ("system", "low", "high", "verdict"),
    [
        ("base", -0.1, 0.2, "promote"),
        ("candidate", -0.1, 0.4, "inconclusive"),
        ("candidate", -0.4, 0.1, "inconclusive"),
    ],
)
def test_a_gain_must_be_above_the_noise_of_the_same_model_asked_twice(system, low, high, verdict):
    """Eight rows vary by 0.4 at most, 64 by a square root of eight less: 0.14, more than the gain of 0.1."""
    both = {"base": served(), "candidate": served(), system: served(changed=3, low=low, high=high)}
    decision = decide(report_of(base=against(BETTER), more={"served": both}), GateSection(), has_champion=False)
    assert decision.verdict == verdict
    (finding,) = (each for each in decision.findings if each.rule == "noise floor")
    assert finding.figures == pytest.approx({"floor": max(-low, high) / 8**0.5, "gain": 0.1})
    assert f"(3 of 8 by the {system})" in finding.sentence


def test_noise_that_cannot_be_told_lets_nothing_be_promoted():
    both = {"base": served(), "candidate": Served(1, 1.0, 1.0, 8, 1, {})}
    decision = decide(report_of(base=against(BETTER), more={"served": both}), GateSection(), has_champion=False)
    assert decision.verdict == "inconclusive"


NOT_ASKED = Served(1, None, None, 0, 0, {})
SILENT = {
    "nobody": ({}, "of the base and of the candidate"),
    "no baseline": ({"candidate": served()}, "of the base"),
    "no candidate": ({"base": served()}, "of the candidate"),
    "a baseline that was not asked again": ({"base": NOT_ASKED, "candidate": served()}, "of the base"),
    "a candidate that was not asked again": ({"base": served(), "candidate": NOT_ASKED}, "of the candidate"),
    "no number of rows": ({"base": served(), "candidate": replace(served(), asked_again=math.nan)}, "of the candidate"),
}


@pytest.mark.parametrize("case", SILENT)
def test_who_was_not_asked_again_has_noise_that_nobody_knows(case):
    """The rows that are asked again may be rows that the champion learned, which nobody is compared on."""
    who, said = SILENT[case]
    decision = decide(report_of(base=against(BETTER), more={"served": who}), GateSection(), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert decision.reasons[0] == (
        f"No evaluated row was asked again {said}, so it is not known how far rougeL varies of itself."
    )


def test_a_base_that_was_not_asked_again_does_not_matter_beside_a_champion():
    report = report_of(base=against(BETTER), champion=against(BETTER), more={"served": {**STEADY, "base": NOT_ASKED}})
    assert decide(report, GateSection(), has_champion=True).verdict == "promote"


def test_models_that_answer_alike_twice_have_no_noise_to_pass():
    both = {"base": served(), "candidate": served()}
    decision = decide(report_of(base=against(BETTER), more={"served": both}), GateSection(), has_champion=False)
    assert decision.verdict == "promote"
    assert not any(finding.rule == "noise floor" for finding in decision.findings)


BUDGETS = {
    "within both": ({"max_answer_seconds": 1.0, "max_servable_mb": 100}, "promote"),
    "too slow": ({"max_answer_seconds": 0.9}, "reject"),
    "too large": ({"max_servable_mb": 99}, "reject"),
    "no limits": ({}, "promote"),
}


@pytest.mark.parametrize("case", BUDGETS)
def test_budgets_of_time_and_size(case):
    limits, verdict = BUDGETS[case]
    report = report_of(base=against(BETTER), more={"served": {"base": served(seconds=9.0), "candidate": served()}})
    decision = decide(report, GateSection(**limits), has_champion=False)
    assert decision.verdict == verdict
    assert sum(finding.rule == "budget" for finding in decision.findings) == len(limits)


def test_a_time_that_was_not_measured_does_not_keep_a_budget():
    more = {"served": {"base": served(), "candidate": served(seconds=None)}}
    decision = decide(report_of(base=against(BETTER), more=more), GateSection(max_answer_seconds=1), has_champion=False)
    assert decision.verdict == "inconclusive"
    assert "It was not measured, and at most 1 are allowed (gate.max_answer_seconds)." in decision.reasons


NAN = math.nan
LEGAL = GateSection(protected_slices=("legal",))
LIMITS = GateSection(max_answer_seconds=5, max_servable_mb=500)


def asked_again(changed=1, **noise):
    return {"base": served(), "candidate": Served(1, 1.0, 1.0, 8, changed, noise)}


def legal(rows, differences):
    return {"slices": {"legal": Part(rows, {}, differences)}}


def sets(anchor=BETTER, recent=BETTER, rows=40):
    return {
        "sets": {
            "anchor": Part(rows, {}, {"base": {"rougeL": anchor}}),
            "recent": Part(40, {}, {"base": {"rougeL": recent} if recent else {}}),
        }
    }


def general(difference, rows=40):
    return {"general": Part(rows, {}, {"base": {"reference_nats": difference}} if difference else {})}


BROKEN = {
    "no number as time": ({"served": {**STEADY, "candidate": served(seconds=NAN)}}, LIMITS),
    "a time below zero": ({"served": {**STEADY, "candidate": served(seconds=-1.0)}}, LIMITS),
    "no bytes": ({"served": {**STEADY, "candidate": served(size=0)}}, LIMITS),
    "noise that is no number": ({"served": asked_again(rougeL=Interval(NAN, NAN, NAN))}, GateSection()),
    "noise that ends in no number": ({"served": asked_again(rougeL=Interval(0.0, 0.01, NAN))}, GateSection()),
    "noise that begins with no number": ({"served": asked_again(rougeL=Interval(0.0, NAN, 0.01))}, GateSection()),
    "noise upside down": ({"served": asked_again(rougeL=Interval(0.0, 0.01, -0.01))}, GateSection()),
    "noise of another metric": ({"served": asked_again(bleu=Interval(0.0, 0.0, 0.0))}, GateSection()),
    "noise of one of two that changed": (
        {"served": {**asked_again(), "base": served(changed=1, low=-0.01, high=0.01)}},
        GateSection(),
    ),
    "noise of one of two that is no number": (
        {"served": {**asked_again(rougeL=Interval(0, NAN, 0)), "base": served(changed=1, low=-0.01, high=0.01)}},
        GateSection(),
    ),
    "more changed than was asked": ({"served": asked_again(9, rougeL=Interval(0.0, 0.0, 0.0))}, GateSection()),
    "a slice upside down": (legal(50, {"base": {"rougeL": Difference(-0.5, 0.2, -0.9, 0.1, 0.9)}}), LEGAL),
    "a slice whose end is no number": (legal(50, {"base": {"rougeL": Difference(0.1, 0.05, NAN, 0.1, 0.9)}}), LEGAL),
    "a slice without the metric": (legal(50, {"base": {}}), LEGAL),
    "a slice without the baseline": (legal(50, {}), LEGAL),
    "a slice with no number of rows": (legal(NAN, {"base": {"rougeL": BETTER}}), LEGAL),
    "no canary": ({"memorised": Memorised(0, 0, ())}, GateSection()),
    "an exposure that is no number": ({"memorised": Memorised(2, 0, (1.0, NAN))}, GateSection()),
    "an exposure that is missing": ({"memorised": Memorised(2, 0, (1.0,))}, GateSection()),
    "no confidence": ({"confidence": NAN}, GateSection()),
    "a confidence of zero": ({"confidence": 0.0}, GateSection()),
    "a confidence of one": ({"confidence": 1.0}, GateSection()),
    "a set without the difference": (sets(recent=None), GateSection()),
    "a set upside down": (sets(anchor=UPSIDE_DOWN), GateSection()),
    "a general loss that is no number": (general(Difference(0.0, NAN, 0.0, 0.5, 0.5)), GateSection()),
    "a general loss upside down": (general(Difference(0.0, 0.9, 0.0, 0.5, 0.5)), GateSection()),
    "no general loss": (general(None), GateSection()),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_or_broken_never_promotes(case):
    more, gate = BROKEN[case]
    decision = decide(report_of(base=against(BETTER), more=more), gate, has_champion=False)
    assert decision.verdict == "inconclusive"
    assert decision.findings[0].outcome == "open" and decision.reasons[0].endswith(".")


def test_the_same_figures_unbroken_promote():
    """Else the cases above would be open for another reason."""
    seen = {"served": {"base": served(), "candidate": served(changed=1, low=-0.01, high=0.01)}}
    more = {**seen, **legal(50, {"base": {"rougeL": BETTER}}), **sets(), "memorised": Memorised(2, 0, (1.0, 0.0))}
    more |= general(Difference(0.0, -0.001, 0.001, 0.5, 0.5))
    gate = GateSection(protected_slices=("legal",), max_answer_seconds=5, max_servable_mb=500)
    assert decide(report_of(base=against(BETTER), more=more), gate, has_champion=False).verdict == "promote"


def test_no_number_of_rows_decides_nothing():
    assert decide(report_of(NAN, base=against(BETTER)), GateSection(), has_champion=False).verdict == "inconclusive"


@pytest.mark.parametrize("p_value", [-0.1, 1.5])
def test_a_p_value_that_is_no_probability_decides_nothing(p_value):
    for odd in (Difference(0.1, 0.06, 0.14, p_value, 1.0), Difference(0.1, 0.06, 0.14, 0.001, p_value)):
        assert decide(report_of(base=against(odd)), GateSection(), has_champion=False).verdict == "inconclusive"


def test_every_rule_leaves_its_figures():
    decision = decide(report_of(base=against(BETTER), champion=against(BETTER)), GateSection(), has_champion=True)
    assert [finding.rule for finding in decision.findings] == ["primary metric", *["guarded metric"] * 3]
    assert decision.findings[0].figures == {"value": 0.10, "low": 0.06, "high": 0.14, "p_value": 0.0001}
    assert [finding.outcome for finding in decision.findings] == ["passed"] * 4


def test_p_values_are_corrected_step_by_step():
    """Holm's own rule: the smallest times three, the next times two, and never below one before."""
    assert holm({"a": 0.02, "b": 0.01, "c": 0.025}) == pytest.approx({"a": 0.04, "b": 0.03, "c": 0.04})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_guarding_the_primary_metric_as_well_changes_nothing():
    gate = GateSection(guarded_metrics=("rougeL", "bleu"))
    decision = decide(report_of(base=against(BETTER)), gate, has_champion=False)
    assert decision.verdict == "promote"
    assert len(decision.reasons) == 2


@pytest.mark.parametrize(
    ("difference", "min_improvement", "expected"),
    [
        (Interval(0.02, 0.0, 0.04), 0.0, 64 * 2.043),
        (Interval(0.02, -0.02, 0.06), 0.01, 16 * 64 * 2.0430),
        (TIE, 0.0, None),
        (SLIGHTLY_DOWN, 0.0, None),
        (Interval(0.02, -0.02, 0.06), 0.02, None),
        (Interval(0.001, 0.002, 0.003), 0.0, None),
        (Interval(1e-9, -1.0, 1.0), 0.0, 1_000_000),
    ],
)
def test_examples_needed_follows_the_square_root_law(difference, min_improvement, expected):
    """A chance of four in five takes ((1.96 + 0.842) / 1.96)**2 = 2.043 times the rows of an even chance."""
    needed = examples_needed(difference, 64, min_improvement, 0.95)
    assert needed == expected or (expected and needed == pytest.approx(expected, abs=1.5))


def test_the_rows_that_are_told_are_enough_four_times_in_five():
    """Normal scores of 64 rows with an effect: as many rows as are told see it with about the chance that is told."""
    import numpy as np

    generator = np.random.default_rng(3)
    effect, spread, examples = 0.04, 0.165, 64
    half = 1.96 * spread / examples**0.5
    needed = examples_needed(Interval(effect, effect - half, effect + half), examples, 0.0, 0.95)
    means = generator.normal(effect, spread / needed**0.5, 20_000)
    seen = (means - 1.96 * spread / needed**0.5 > 0).mean()
    assert seen == pytest.approx(0.8, abs=0.01)
