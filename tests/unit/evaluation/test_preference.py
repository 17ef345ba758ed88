"""The exact sign test, the interval of a preference, and the gate's rule on it."""

import math
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
from steady_systems import STEADY

from tasks.contracts.artifacts import Difference, EvalReport, Interval, Preference
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.evaluation.gate import decide
from tasks.evaluation.judging.judge import JudgedPair, Reply, preference_of
from tasks.evaluation.judging.question import AnswerPair
from tasks.evaluation.preference import counted, mean_with_interval, sign_test
from tasks.evaluation.preference_sentence import sentence

ALPHA = 0.025
EVALUATION = EvaluationSection(resamples=300, randomisations=1_000)
BETTER = Difference(0.10, 0.06, 0.14, p_better=0.0001, p_worse=1.0)
BARELY_WORSE = Difference(-0.1, -0.2, -0.001, p_better=0.98, p_worse=0.02)
LIKED = Preference("judge", ("m",), "base", 64, 30, 24, 10, Interval(0.66, 0.56, 0.75), 0.001, 0.9995)
DISLIKED = replace(LIKED, wins=10, losses=30, share=Interval(0.34, 0.25, 0.44), p_better=0.9995, p_worse=0.001)
UNSURE = replace(LIKED, wins=20, losses=20, share=Interval(0.5, 0.4, 0.6), p_better=0.56, p_worse=0.56)
BARELY_DISLIKED = replace(DISLIKED, share=Interval(0.42, 0.35, 0.499), p_worse=0.02)


def report_of(*preferences, bleu=BETTER):
    return EvalReport(
        Path("/nowhere"),
        "",
        64,
        {},
        {"base": {"rougeL": BETTER, "bleu": bleu, "chrf": BETTER}},
        {},
        preferences=preferences,
        served=STEADY,
    )


def decided(judge, *preferences, **more):
    return decide(report_of(*preferences, **more), GateSection(judge=judge), has_champion=False)


def test_the_sign_test_is_the_binomial_s_tail_and_leaves_ties_out():
    for wins, losses in [(0, 1), (3, 1), (10, 0), (7, 9), (40, 20)]:
        tosses = wins + losses
        tails = [sum(comb(tosses, k) for k in range(least, tosses + 1)) / 2**tosses for least in (wins, losses)]
        assert sign_test(wins, losses) == pytest.approx(tails)
    assert sign_test(0, 0) == (1.0, 1.0)


def test_rows_are_counted_by_the_side_that_they_are_on():
    assert counted([1.0, 0.75, 0.5, 0.5, 0.25, 0.0, 0.0]) == (2, 2, 3)


def test_the_interval_of_a_mean_is_as_wide_as_its_rows_say():
    shares = [1.0] * 60 + [0.0] * 40
    found = mean_with_interval(shares, EvaluationSection(resamples=4_000))
    assert found.value == 0.6
    width = 2 * 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert found.high - found.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize(
    ("judge", "said", "verdict", "outcome"),
    [
        ("off", DISLIKED, "promote", None),
        ("guard", LIKED, "promote", "passed"),
        ("guard", UNSURE, "promote", "passed"),
        ("guard", DISLIKED, "reject", "failed"),
        ("require", LIKED, "promote", "passed"),
        ("require", UNSURE, "inconclusive", "open"),
        ("require", DISLIKED, "reject", "failed"),
        ("require", replace(LIKED, p_better=0.03), "inconclusive", "open"),
        ("require", replace(LIKED, share=Interval(0.6, 0.5, 0.7)), "inconclusive", "open"),
        ("require", replace(LIKED, examples=29), "inconclusive", "open"),
        ("guard", replace(LIKED, examples=29), "inconclusive", "open"),
        ("require", replace(LIKED, problem="it was down"), "inconclusive", "open"),
        ("guard", replace(LIKED, problem="it was down"), "inconclusive", "open"),
        ("require", replace(LIKED, kind="people"), "inconclusive", "open"),
        ("require", replace(LIKED, baseline="champion"), "inconclusive", "open"),
        ("require", replace(LIKED, p_better=math.nan), "inconclusive", "open"),
        ("guard", replace(LIKED, p_worse=math.nan), "inconclusive", "open"),
        ("guard", replace(LIKED, share=Interval(math.nan, 0.4, 0.6)), "inconclusive", "open"),
        ("guard", replace(LIKED, share=Interval(0.6, math.nan, 0.7)), "inconclusive", "open"),
        ("require", replace(LIKED, share=Interval(0.6, 0.7, 0.55)), "inconclusive", "open"),
        ("guard", replace(DISLIKED, share=Interval(0.45, 0.35, 0.5)), "promote", "passed"),
        ("require", replace(DISLIKED, share=Interval(0.45, 0.35, 0.5)), "inconclusive", "open"),
        ("require", replace(LIKED, p_better=-1.0), "inconclusive", "open"),
        ("guard", replace(LIKED, p_worse=1.1), "inconclusive", "open"),
        ("require", replace(LIKED, share=Interval(0.66, 0.56, 7.5)), "inconclusive", "open"),
        ("require", replace(LIKED, by=()), "inconclusive", "open"),
        ("require", replace(LIKED, wins=0), "inconclusive", "open"),
        ("guard", replace(LIKED, examples=math.nan), "inconclusive", "open"),
    ],
)
def test_what_a_judge_prefers_counts_as_the_gate_asks(judge, said, verdict, outcome):
    decision = decided(judge, said)
    assert decision.verdict == verdict
    assert [finding.outcome for finding in decision.findings if finding.rule == "judge"] == (
        [outcome] if outcome else []
    )


@pytest.mark.parametrize("judge", ["guard", "require"])
def test_a_report_without_a_judgement_promotes_nothing_that_needs_one(judge):
    decision = decided(judge)
    assert decision.verdict == "inconclusive"
    assert "The report holds no judgement against base; expected one (gate.judge)." in decision.reasons


def test_the_judge_is_corrected_together_with_the_guarded_metrics():
    """Barely disliked is significant alone, and not as one of three."""
    assert decide(
        report_of(BARELY_DISLIKED), GateSection(judge="guard", guarded_metrics=()), has_champion=False
    ).verdict == ("reject")
    assert decided("guard", BARELY_DISLIKED).verdict == "promote"
    together = decided("guard", replace(DISLIKED, p_worse=0.012), bleu=BARELY_WORSE)
    assert together.verdict == "promote", "0.012 and 0.02 of three: neither is below the level"
    assert decided("off", bleu=replace(BARELY_WORSE, p_worse=0.012)).verdict == "reject"
    assert decided("guard", UNSURE, bleu=replace(BARELY_WORSE, p_worse=0.012)).verdict == "promote", (
        "and a metric by it"
    )


def test_a_finding_has_the_figures_and_what_is_said_of_them():
    (finding,) = (each for each in decided("require", LIKED).findings if each.rule == "judge")
    assert finding.sentence == (
        "m preferred the candidate's answer on 30 of 64 rows and that of base on 10: mean 0.660, "
        "interval [0.560, 0.750], p = 0.001: significantly preferred."
    )
    assert finding.figures == {"value": 0.66, "low": 0.56, "high": 0.75, "p_value": 0.001}


def test_a_preference_in_one_sentence_holds_what_there_is_to_know():
    said = sentence(
        replace(LIKED, identical=3, left_out=2, position_bias=Interval(0.1, 0.05, 0.15), inconsistent=0.25, failed=4)
    )
    assert said.startswith(
        "The judge (m) preferred the candidate to base on 30 of 64 rows, lost 10, 24 ties: mean 0.660"
    )
    for part in ("3 rows were answered alike", "2 rows have no verdict", "+0.100 [+0.050, +0.150]", "25%", "4 failed"):
        assert part in said
    assert sentence(replace(LIKED, problem="it was down")) == "The judge (m) said nothing that counts: it was down."


def simulated(generator, rows, first_preferred, candidate_better):
    """A judge with a taste for what comes first, put before two systems."""
    judged = []
    for row in range(rows):
        strength = generator.normal(candidate_better, 1)  # of the candidate's answer against the other
        replies = []
        for sign in (1, -1):
            seen = sign * strength + first_preferred + generator.normal(0, 0.5)
            replies.append(Reply("A" if seen > 0.2 else "B" if seen < -0.2 else "tie"))
        judged.append(JudgedPair(AnswerPair(str(row), [], "", "x", "y"), *replies))
    return preference_of(judged, "base", EVALUATION)


def binomial_interval(share, count):
    """Return the middle 99 % of how often something happens that has the chance `share`."""
    return np.quantile(np.random.default_rng(0).binomial(count, share, 200_000), [0.005, 0.995])


def level_of(tosses):
    """Return the chance that the exact test has: the largest tail of so many tosses that alpha allows."""
    tails = (sign_test(wins, tosses - wins)[0] for wins in range(tosses + 1))
    return max((tail for tail in tails if tail <= ALPHA), default=0.0)


@pytest.mark.parametrize("first_preferred", [0.0, 0.8])
def test_a_required_judge_promotes_what_is_alike_as_often_as_the_exact_test_says(first_preferred):
    """Which is at most alpha, as tosses are counted whole; also with a judge that prefers what comes first."""
    generator, comparisons = np.random.default_rng(17), 1_000
    said = [simulated(generator, 64, first_preferred, 0.0) for _ in range(comparisons)]
    verdicts = [decided("require", each).verdict for each in said]
    levels = {tosses: level_of(tosses) for tosses in {each.wins + each.losses for each in said}}
    low, high = binomial_interval(np.mean([levels[each.wins + each.losses] for each in said]), comparisons)
    assert high <= binomial_interval(ALPHA, comparisons)[1]
    assert low <= verdicts.count("promote") <= high
    assert low <= verdicts.count("reject") <= high


def test_a_required_judge_sees_a_clear_preference_on_64_rows_with_a_chance_of_four_in_five():
    generator = np.random.default_rng(17)
    verdicts = [decided("require", simulated(generator, 64, 0.3, 0.5)).verdict for _ in range(200)]
    assert verdicts.count("promote") >= 160
