"""How sure a score is, and how sure a difference of two systems on the same rows: resampled rows and swapped answers.

- Paired bootstrap: rows are drawn with replacement, the same rows for every system, and the middle of the resampled
  scores is the interval (percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
  13; paired, for corpus metrics: Koehn, Statistical Significance Tests for Machine Translation Evaluation, 2004,
  W04-3250).
- Approximate randomisation: if the systems were alike, it would not matter whose answer is whose. Each row's two
  answers are swapped or not by the toss of a coin, and the p-value is the share of tosses that show at least the
  difference that was seen (Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989; for corpus metrics: Riezler
  and Maxwell, On Some Pitfalls in Automatic Evaluation and Significance Testing for MT, 2005, W05-0908).

A score comes of sums over rows, so both are one product of matrices for all metrics and systems together.

Legend: n examples, b resamples, k statistics an example and metric.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.artifacts import Difference, Interval
from tasks.contracts.errors import EvaluationError

Array = NDArray[np.float64]
ScoreSums = Callable[[Array, int], Array]

_CELLS_AT_ONCE = 4_000_000
# A difference of systems that answer alike must be 0, not what is left of rounding in sums of up to 100 n.
_DECIMALS = 9


@dataclass(frozen=True)
class Measured:
    """What one metric says of every system.

    Attributes:
        statistics: system → (n, k) rows that add up to the corpus score; one system is "candidate".
        score_sums: ((b, k) sums, n) → (b,) corpus scores.
    """

    statistics: Mapping[str, Array]
    score_sums: ScoreSums


@dataclass(frozen=True)
class Compared:
    """What is known of one metric.

    Attributes:
        scores: system → its corpus score with its interval.
        differences: baseline → candidate minus baseline with interval and p-values.
    """

    scores: dict[str, Interval]
    differences: dict[str, Difference]


def compare(
    metrics: Mapping[str, Measured], resamples: int, randomisations: int, confidence: float, seed: int
) -> dict[str, Compared]:
    """Compare the candidate with every other system, by every metric, on the same resamples and swaps.

    Args:
        metrics: name → what it says; all of the same systems and examples.
        resamples: how often n rows are drawn for the intervals.
        randomisations: how often answers are swapped for the p-values.
        confidence: share of the resampled scores inside an interval.
        seed: the same seed draws the same rows and swaps.

    Raises:
        EvaluationError: there is no example, the systems have different counts, or none is the candidate.
    """
    examples = common_length(metrics)
    columns = _Columns(metrics)
    resampled = columns.scores_of(columns.matrix, _resample_counts(examples, resamples, seed), examples)
    whole = np.ones((1, examples))
    observed = columns.scores_of(columns.matrix, iter([whole]), examples)
    tests = {
        baseline: _randomised(columns, baseline, randomisations, seed)
        for baseline in columns.systems
        if baseline != "candidate"
    }
    compared = {}
    for name in metrics:
        scores = {
            system: _interval(float(observed[name, system][0]), resampled[name, system], confidence)
            for system in columns.systems
        }
        differences = {}
        for baseline, swapped in tests.items():
            value = round(float(observed[name, "candidate"][0] - observed[name, baseline][0]), _DECIMALS)
            drawn = np.round(resampled[name, "candidate"] - resampled[name, baseline], _DECIMALS)
            interval = _interval(value, drawn, confidence)
            differences[baseline] = Difference(
                value,
                interval.low,
                interval.high,
                p_better=share_at_least(swapped[name], value),
                p_worse=share_at_least(-swapped[name], -value),
            )
        compared[name] = Compared(scores, differences)
    return compared


def share_at_least(drawn: Array, seen: float) -> float:
    """Return the p-value of what was seen: the share of draws at least as large, with it among the draws.

    Adding the one that was seen keeps the test's level exact (Phipson and Smyth, Permutation P-values Should Never Be
    Zero, 2010).
    """
    return (1 + int(np.count_nonzero(drawn >= seen))) / (1 + len(drawn))


def common_length(metrics: Mapping[str, Measured]) -> int:
    """Return how many examples all metrics and systems have.

    Raises:
        EvaluationError: there is none, they differ, or no system is the candidate.
    """
    lengths = {
        (name, system): len(rows) for name, measured in metrics.items() for system, rows in measured.statistics.items()
    }
    systems = dict.fromkeys(system for _, system in lengths)
    if "candidate" not in systems:
        raise EvaluationError(f"the systems are {', '.join(systems) or 'none'}; expected one named candidate")
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise EvaluationError(f"examples a metric and system are {lengths}; expected the same number, at least 1")
    return next(iter(lengths.values()))


class _Columns:
    """The statistics of all metrics and systems as the columns of one matrix."""

    def __init__(self, metrics: Mapping[str, Measured]) -> None:
        self._metrics = metrics
        self.systems = list(next(iter(metrics.values())).statistics)
        self._at: dict[tuple[str, str], slice] = {}
        parts, start = [], 0
        for name, measured in metrics.items():
            for system in self.systems:
                rows = measured.statistics[system]
                self._at[name, system] = slice(start, start + rows.shape[1])
                start += rows.shape[1]
                parts.append(rows)
        self.matrix: Array = np.concatenate(parts, axis=1)  # (n, all k)

    def swaps(self, baseline: str) -> Array:
        """Return what a row's swap adds to each column: (n, all k), 0 for systems that are not swapped."""
        change = np.zeros_like(self.matrix)
        for name in self._metrics:
            ours, theirs = self._at[name, "candidate"], self._at[name, baseline]
            change[:, ours] = self.matrix[:, theirs] - self.matrix[:, ours]
            change[:, theirs] = -change[:, ours]
        return change

    def scores_of(
        self, rows: Array, weights: Iterator[Array], examples: int, start: Array | None = None
    ) -> dict[tuple[str, str], Array]:
        """Return (b,) scores of each metric and system from weighted sums of `rows`, added to `start`."""
        found: dict[tuple[str, str], list[Array]] = {key: [] for key in self._at}
        for weight in weights:
            sums = weight @ rows if start is None else weight @ rows + start
            for (name, system), columns in self._at.items():
                found[name, system].append(self._metrics[name].score_sums(sums[:, columns], examples))
        return {key: np.concatenate(parts) for key, parts in found.items()}


def _randomised(columns: _Columns, baseline: str, randomisations: int, seed: int) -> dict[str, Array]:
    """Return metric → (b,) differences under swaps of the candidate's answers with the baseline's."""
    examples = len(columns.matrix)
    scores = columns.scores_of(
        columns.swaps(baseline), _coins(examples, randomisations, seed), examples, columns.matrix.sum(axis=0)
    )
    names = dict.fromkeys(name for name, _ in scores)
    return {name: np.round(scores[name, "candidate"] - scores[name, baseline], _DECIMALS) for name in names}


def _resample_counts(examples: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yield (b, n) arrays, b adding up to `resamples`: how often each row was drawn."""
    generator = np.random.default_rng(seed)
    for size in _portions(examples, resamples):
        drawn = generator.integers(0, examples, size=(size, examples))
        drawn += np.arange(size)[:, None] * examples
        counts = np.bincount(drawn.ravel(), minlength=size * examples)
        yield counts.reshape(size, examples).astype(float)


def _coins(examples: int, tosses: int, seed: int) -> Iterator[Array]:
    """Yield (b, n) arrays of zeros and ones, b adding up to `tosses`."""
    generator = np.random.default_rng([seed, 1])  # not the draws of the bootstrap
    for size in _portions(examples, tosses):
        bits = np.unpackbits(np.frombuffer(generator.bytes((size * examples + 7) // 8), dtype=np.uint8))
        yield bits[: size * examples].reshape(size, examples).astype(float)


def _portions(examples: int, total: int) -> Iterator[int]:
    at_once = max(1, _CELLS_AT_ONCE // examples)
    for start in range(0, total, at_once):
        yield min(at_once, total - start)


def _interval(value: float, resampled: Array, confidence: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=float(low), high=float(high))
