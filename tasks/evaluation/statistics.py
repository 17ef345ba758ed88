"""Paired bootstrap: how sure a corpus score is, and how sure the difference of two systems on the same rows.

Rows are drawn with replacement, the same rows for every system, and the middle of the resampled scores is the interval
(percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; paired, for corpus
metrics: Koehn, Statistical Significance Tests for Machine Translation Evaluation, 2004, W04-3250).

Legend: n examples, k statistics an example, b resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.artifacts import Interval
from tasks.contracts.errors import EvaluationError

Array = NDArray[np.float64]

_DRAWS_AT_ONCE = 4_000_000
# A difference of systems that answer alike must be 0, not what is left of rounding in sums of up to 100 n.
_DECIMALS = 9


@dataclass(frozen=True)
class BootstrapIntervals:
    """Intervals of one metric.

    Attributes:
        scores: system → its corpus score.
        differences: baseline → candidate minus baseline.
    """

    scores: dict[str, Interval]
    differences: dict[str, Interval]


def paired_bootstrap(
    statistics: Mapping[str, Array],
    score_sums: Callable[[Array, int], Array],
    resamples: int,
    confidence: float,
    seed: int,
) -> BootstrapIntervals:
    """Resample the rows of all systems together.

    Args:
        statistics: system → (n, k) rows that add up to the corpus score; one system is "candidate".
        score_sums: ((b, k) sums, n) → (b,) corpus scores.
        resamples: how often n rows are drawn.
        confidence: share of the resampled scores inside an interval.
        seed: the same seed draws the same rows, also for another metric.

    Raises:
        EvaluationError: there is no example, the systems have different counts, or none is the candidate.
    """
    examples = _common_length(statistics)
    resampled: dict[str, list[Array]] = {system: [] for system in statistics}
    for counts in _resample_counts(examples, resamples, seed):
        for system, rows in statistics.items():
            resampled[system].append(score_sums(counts @ rows, examples))
    scores = {system: np.concatenate(parts) for system, parts in resampled.items()}
    observed = {
        system: float(score_sums(rows.sum(axis=0, keepdims=True), examples)[0]) for system, rows in statistics.items()
    }
    differences = {
        system: _interval(
            round(observed["candidate"] - observed[system], _DECIMALS),
            np.round(scores["candidate"] - scores[system], _DECIMALS),
            confidence,
        )
        for system in statistics
        if system != "candidate"
    }
    return BootstrapIntervals(
        {system: _interval(observed[system], scores[system], confidence) for system in statistics}, differences
    )


def _common_length(statistics: Mapping[str, Array]) -> int:
    lengths = {system: len(rows) for system, rows in statistics.items()}
    if "candidate" not in lengths:
        raise EvaluationError(f"the systems are {', '.join(lengths) or 'none'}; expected one named candidate")
    if len(set(lengths.values())) != 1 or lengths["candidate"] == 0:
        raise EvaluationError(f"examples a system are {lengths}; expected the same number, at least 1")
    return lengths["candidate"]


def _resample_counts(examples: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yield (b, n) arrays, b adding up to `resamples`: how often each row was drawn."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // examples)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = generator.integers(0, examples, size=(size, examples))
        drawn += np.arange(size)[:, None] * examples
        counts = np.bincount(drawn.ravel(), minlength=size * examples)
        yield counts.reshape(size, examples).astype(float)


def _interval(value: float, resampled: Array, confidence: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=float(low), high=float(high))
