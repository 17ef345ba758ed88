"""Corpus scores from sacrebleu's statistics of each example, which add up: a resample need not read the texts again."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.text_metric import TextMetric


class SacrebleuMetric(TextMetric):
    """A corpus metric of sacrebleu, 0 to 100.

    `_extract_corpus_statistics` is private to sacrebleu but what its own significance tests resample. `score_sums` of
    a class below spells its formula for many resamples at a time; tests hold both equal to `corpus_score`.
    """

    @abstractmethod
    def _scorers(self, references: list[str]) -> dict[Any, list[int]]:
        """Return the `sacrebleu.metrics` objects and which rows each scores, by the script of the reference."""

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, Any]:
        (name,) = self.names
        parts = self._scorers(references)
        statistics: list[Any] = [None] * len(references)
        for scorer, rows in parts.items():
            answers, expected = [predictions[row] for row in rows], [references[row] for row in rows]
            found = scorer._extract_corpus_statistics(answers, [expected])
            for row, counts in zip(rows, found, strict=True):
                statistics[row] = counts
        rows_of = np.array(statistics, dtype=float)  # (n, k)
        signatures = " + ".join(str(scorer.get_signature()) for scorer in parts)
        return {
            name: float(self.score_sums(rows_of.sum(axis=0, keepdims=True), len(references))[0]),
            "statistics": {name: rows_of},
            "signature": f"{name}|{signatures}|examples:{len(references)}",
        }


def divided(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quotient, 0 where there is nothing to divide by."""
    quotient: NDArray[np.float64] = np.zeros_like(numerator, dtype=float)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)
