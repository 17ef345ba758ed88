"""chrF: F-score of character n-grams, which needs no tokenizer and so suits every script."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import CHRF

from tasks.evaluation.metrics.sufficient_statistics import SacrebleuMetric, divided

_ORDERS = 6
_RECALL_WEIGHT = 2**2


class Chrf(SacrebleuMetric):
    """Corpus chrF2 (character n-grams up to 6, recall counted twice), 0 to 100."""

    names = ("chrf",)
    summary = "Corpus chrF2 of sacrebleu, 0 to 100."
    source = "Maja Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015 (W15-3049)"

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return chrF of each row of sums: n-grams of the answer, of the reference, and common ones, of 6 orders.

        Precision and recall are means over the orders that both sides have.
        """
        counts = sums.reshape(len(sums), _ORDERS, 3)  # (b, orders, [answer, reference, common])
        answer, reference, common = counts[..., 0], counts[..., 1], counts[..., 2]
        used = (answer > 0) & (reference > 0)
        orders = used.sum(axis=1).astype(float)
        precision = divided(np.where(used, divided(common, answer), 0).sum(axis=1), orders)
        recall = divided(np.where(used, divided(common, reference), 0).sum(axis=1), orders)
        return 100 * divided((1 + _RECALL_WEIGHT) * precision * recall, _RECALL_WEIGHT * precision + recall)

    def _scorers(self, references: list[str]) -> dict[Any, list[int]]:
        return {CHRF(char_order=_ORDERS, beta=2): list(range(len(references)))}
