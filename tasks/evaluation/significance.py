"""What follows from p-values and intervals: corrected for several tests, and the rows that would be needed."""

import math
from collections.abc import Hashable, Mapping
from statistics import NormalDist
from typing import TypeGuard, TypeVar

from tasks.contracts.artifacts import Difference, Interval
from tasks.contracts.metric_names import facts_of

POWER = 0.8
"""The chance to see an effect that the needed rows are told for, as is usual (Cohen, 1988)."""
_MOST_EXAMPLES = 1_000_000
_ROUNDING = 1e-9
_Name = TypeVar("_Name", bound=Hashable)
_Seen = TypeVar("_Seen", bound=Interval)


def holm(p_values: Mapping[_Name, float]) -> dict[_Name, float]:
    """Return p-values corrected so that the chance of any false finding among them stays at the level.

    The smallest is multiplied by the number of tests, the next by one less, and none may fall below one before it
    (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979). It holds however the tests depend on each
    other.
    """
    corrected: dict[_Name, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def is_evidence(seen: _Seen | None) -> TypeGuard[_Seen]:
    """Say whether a figure is there, finite, with an interval the right way up and p-values that are probabilities.

    A comparison with what is no number is false, which a rule may take for "not worse"; so every rule asks this first.
    """
    if seen is None or not all(map(math.isfinite, (seen.value, seen.low, seen.high))) or seen.low > seen.high:
        return False
    return not isinstance(seen, Difference) or are_probabilities(seen.p_better, seen.p_worse)


def are_probabilities(*figures: float) -> bool:
    """Say whether all figures are numbers from 0 to 1, but for rounding."""
    return all(-_ROUNDING <= figure <= 1 + _ROUNDING for figure in figures)


def expanded(interval: Interval, examples: int, confidence: float) -> Interval:
    """Return a bootstrap interval as wide as it must be for few rows.

    The resampled scores spread as sqrt((n - 1) / n) of what they should, and as a normal distribution where the spread
    itself is estimated; so both half widths grow by sqrt(n / (n - 1)) * t / z, with the quantiles z of the normal and t
    of Student's distribution with n - 1 degrees of freedom (Hesterberg, What Teachers Should Know About the Bootstrap,
    2015, section 4.3). t out of z: Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.5; right to
    three digits from 10 rows.

    Args:
        interval: of a figure over some rows.
        examples: n, how many, at least 2.
        confidence: of the interval.
    """
    free, z = examples - 1, NormalDist().inv_cdf((1 + confidence) / 2)
    t = (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
    factor, value = math.sqrt(examples / free) * t / z, interval.value
    below, above = max(value - interval.low, 0.0), max(interval.high - value, 0.0)
    return Interval(value, min(value - factor * below, interval.low), max(value + factor * above, interval.high))


def gap(first: Interval, second: Interval) -> Interval:
    """Return second minus first, two figures of independent samples, with an interval out of those of both.

    From first [l1, u1] and second [l2, u2], whose intervals need not be symmetric, with d = second - first:
    d - sqrt((second - l2)**2 + (u1 - first)**2) to d + sqrt((u2 - second)**2 + (first - l1)**2) (the method of
    variance estimates recovery: Zou and Donner, Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 27, 2008; of proportions, Newcombe's tenth method of 1998). Its confidence is that
    of the two.
    """
    value = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Interval(value, value - below, value + above)


def improvement(metric: str, difference: Difference) -> Difference:
    """Return a difference as a gain: the higher the better, whichever way the metric counts."""
    if facts_of(metric).better != "lower":
        return difference
    return Difference(
        -difference.value, -difference.high, -difference.low, p_better=difference.p_worse, p_worse=difference.p_better
    )


def examples_needed(difference: Interval, examples: int, bound: float, confidence: float) -> int | None:
    """Estimate how many evaluated rows would show a difference above `bound`, if it stays what it is.

    The standard error of a mean falls with the square root of the rows (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 5), and with it the lower half width w = value - low of the interval. The chance that the
    interval's lower end passes the bound is `POWER` when w * sqrt(n / N) * (z + z_power) / z = value - bound, with the
    normal quantiles z of the confidence and of the power; so N = n * (w / (value - bound) * (1 + z_power / z))**2.

    Args:
        difference: as seen, the higher the better.
        examples: n, the rows that it was seen on.
        bound: what the lower end must pass.
        confidence: of the interval.

    Returns:
        A number above `examples`, at most 1,000,000; None if the difference is not above the bound.
    """
    distance = difference.value - bound
    if distance <= 0 or difference.value < difference.low:
        return None
    normal = NormalDist()
    powered = 1 + normal.inv_cdf(POWER) / normal.inv_cdf((1 + confidence) / 2)
    estimate = examples * (powered * (difference.value - difference.low) / distance) ** 2
    return max(examples, math.floor(min(estimate, _MOST_EXAMPLES - 1))) + 1


def spelled_p_value(p_value: float) -> str:
    """Spell a p-value with its sign of comparison; small ones are told from zero by none of their digits."""
    return f"= {p_value:.2g}" if p_value >= 0.001 else "< 0.001"
