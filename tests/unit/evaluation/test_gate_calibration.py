"""The gate's error rates, counted: how often it promotes what is no better, and sees what is.

The spread is that of the quickstart: ROUGE-L of its candidate minus base has a standard deviation of 0.165 over rows.
"""

from pathlib import Path

import numpy as np
import pytest

from tasks.contracts.artifacts import EvalReport
from tasks.contracts.config import EvaluationSection, GateSection
from tasks.evaluation.gate import decide
from tasks.evaluation.resampling import Measured, compare

ROWS = 64
SPREAD = 0.165
COMPARISONS = 1_000
ALPHA = 0.025
EVALUATION = EvaluationSection(resamples=500, randomisations=1_000)


def mean_of_sums(sums, examples):
    return sums[:, 0] / examples


def drawn(generator, better_by):
    """Scores of two systems: rows differ much in difficulty, and each system has its own luck with each."""
    difficulty = generator.normal(0.3, 0.2, ROWS)
    luck = generator.normal(0, SPREAD / np.sqrt(2), (2, ROWS))
    return {"base": (difficulty + luck[0])[:, None], "candidate": (difficulty + luck[1] + better_by)[:, None]}


def verdicts(gate, better_by=0.0, comparisons=COMPARISONS, scores=drawn):
    """Judge that many pairs of systems and count the verdicts."""
    generator = np.random.default_rng(17)
    counted = {"promote": 0, "reject": 0, "inconclusive": 0}
    names = [gate.primary_metric, *gate.guarded_metrics]
    for seed in range(comparisons):
        measured = {name: Measured(scores(generator, better_by), mean_of_sums) for name in names}
        settings = (EVALUATION.resamples, EVALUATION.randomisations, EVALUATION.confidence, seed)
        found = compare(measured, *settings)
        differences = {"base": {name: each.differences["base"] for name, each in found.items()}}
        report = EvalReport(Path("/nowhere"), "", ROWS, {}, differences, {}, EVALUATION.confidence)
        counted[decide(report, gate, has_champion=False).verdict] += 1
    return counted


def binomial_interval(share, count):
    """Return the middle 99 % of how often something happens that has the chance `share`."""
    counted = np.random.default_rng(0).binomial(count, share, 200_000)
    return np.quantile(counted, [0.005, 0.995])


def test_false_promotions_are_as_frequent_as_alpha_says():
    low, high = binomial_interval(ALPHA, COMPARISONS)
    promoted = verdicts(GateSection(guarded_metrics=()))["promote"]
    assert low <= promoted <= high


def test_false_promotions_of_skewed_scores_with_ties_are_no_more_frequent_than_alpha_says():
    """Exact matches are 0 or 1, most of them the same: no normal distribution."""

    def matches(generator, better_by):
        right = generator.random(ROWS) < 0.2
        changed = generator.random((2, ROWS)) < 0.1
        return {
            "base": (right ^ changed[0]).astype(float)[:, None],
            "candidate": (right ^ changed[1]).astype(float)[:, None],
        }

    _, high = binomial_interval(ALPHA, COMPARISONS)
    promoted = verdicts(GateSection(guarded_metrics=()), scores=matches)["promote"]
    assert 0 < promoted <= high


def test_guarding_many_metrics_rejects_no_more_of_what_is_alike():
    """Eight independent metrics, each at the level alpha, would reject 18 %; corrected together, they add alpha."""
    guarded = ("rouge1", "rouge2", "bleu", "chrf", "exact_match", "token_f1", "rougeLsum", "field_accuracy")
    _, high = binomial_interval(2 * ALPHA, 500)
    counted = verdicts(GateSection(guarded_metrics=guarded), comparisons=500)
    assert ALPHA * 500 < counted["reject"] <= high


def test_an_improvement_of_0_065_is_seen_on_64_rows_with_a_chance_of_four_in_five():
    assert verdicts(GateSection(guarded_metrics=()), better_by=0.065, comparisons=500)["promote"] >= 0.8 * 500


def test_a_loss_of_0_065_is_rejected_as_surely():
    assert verdicts(GateSection(guarded_metrics=()), better_by=-0.065, comparisons=500)["reject"] >= 0.8 * 500


@pytest.mark.parametrize("required", [0.02])
def test_what_is_better_by_just_what_is_required_is_promoted_no_more_often_than_alpha_says(required):
    low, high = binomial_interval(ALPHA, COMPARISONS)
    promoted = verdicts(GateSection(guarded_metrics=(), min_improvement=required), better_by=required)["promote"]
    assert low <= promoted <= high
