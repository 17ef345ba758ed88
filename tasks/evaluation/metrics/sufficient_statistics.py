"""Corpus scores of sacrebleu from statistics that add up over examples, as its own significance tests compute them."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.text_metric import TextMetric


class SacrebleuMetric(TextMetric):
    """A corpus metric of sacrebleu, 0 to 100.

    `_extract_corpus_statistics` and `_compute_score_from_stats` are private to sacrebleu but the only way to resample
    without reading the texts a thousand times; a test holds their result equal to `corpus_score`.
    """

    @abstractmethod
    def _scorer(self, references: list[str]) -> Any:
        """Return the `sacrebleu.metrics` object that suits the references' script."""

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the corpus score of each row of summed statistics; `examples` is part of the sums already."""
        scorer = self._scorer([])
        return np.array([scorer._compute_score_from_stats(row).score for row in sums.tolist()], dtype=float)

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, Any]:
        (name,) = self.names
        scorer = self._scorer(references)
        statistics = np.array(scorer._extract_corpus_statistics(predictions, [references]), dtype=float)
        return {
            name: float(self.score_sums(statistics.sum(axis=0, keepdims=True), len(references))[0]),
            "statistics": {name: statistics},
            "signature": f"{name}|{scorer.get_signature()}|examples:{len(references)}",
        }
