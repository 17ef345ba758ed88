"""Whose answers are preferred: counted over rows, with an interval and the exact sign test.

A row counts 1 if the candidate's answer is preferred, 0 if the baseline's is, and 0.5 for a tie. The interval is that
of all other figures, percentiles of a bootstrap over rows. The p-values are those of the sign test: of the rows that
are no tie, as many preferences of one side by the toss of a coin (Conover, Practical Nonparametric Statistics, 3rd
edition, 1999, section 3.4). Ties are left out of the test, which keeps its level and loses no power against splitting
them at random (Putter, The Treatment of Ties in Some Nonparametric Tests, 1955); the mean and its interval keep them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.contracts.artifacts import Interval
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.evaluation.resampling import Measured, compare


def mean_with_interval(values: Sequence[float], evaluation: EvaluationSection) -> Interval:
    """Return the mean of a figure a row, with its bootstrap interval; `values` are not empty."""
    column = np.asarray(values, dtype=float)[:, None]
    measured = {"": Measured({"candidate": column}, lambda sums, examples: sums[:, 0] / examples)}
    settings = (evaluation.resamples, evaluation.randomisations, evaluation.confidence, evaluation.seed)
    return compare(measured, *settings)[""].scores["candidate"]


def sign_test(wins: int, losses: int) -> tuple[float, float]:
    """Return the exact one-sided p-values of as many wins or more, and of as many losses or more."""
    from scipy.stats import binomtest

    if not wins + losses:
        return 1.0, 1.0
    both = (binomtest(count, wins + losses, alternative="greater").pvalue for count in (wins, losses))
    better, worse = (float(p_value) for p_value in both)
    return better, worse


def figures_of(shares: Sequence[float], evaluation: EvaluationSection) -> dict[str, Any]:
    """Return what a `Preference` says of its rows; `shares` are not empty."""
    wins, ties, losses = counted(shares)
    p_better, p_worse = sign_test(wins, losses)
    share = mean_with_interval(shares, evaluation)
    counts = {"examples": len(shares), "wins": wins, "ties": ties, "losses": losses}
    return {**counts, "share": share, "p_better": p_better, "p_worse": p_worse}


def counted(shares: Sequence[float]) -> tuple[int, int, int]:
    """Return how many rows prefer the candidate, neither, and the baseline."""
    wins, losses = (sum(share > 0.5 for share in shares), sum(share < 0.5 for share in shares))
    return wins, len(shares) - wins - losses, losses
