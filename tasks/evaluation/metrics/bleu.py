"""BLEU: n-gram precision of the corpus with a brevity penalty."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU

from tasks.evaluation.metrics.sufficient_statistics import SacrebleuMetric, divided
from tasks.evaluation.metrics.tokenization import holds_han, holds_unspaced

_ORDERS = 4


class Bleu(SacrebleuMetric):
    """Corpus BLEU-4, 0 to 100, with exponential smoothing.

    Each row is divided into tokens as the script of its reference wants it: "zh" where that holds a Han character,
    "char" where it holds another script without spaces (kana, Thai, Lao, Khmer, Burmese), "13a" otherwise.
    """

    names = ("bleu",)
    summary = "Corpus BLEU of sacrebleu, 0 to 100, tokenizer 13a, zh or char by the script of each reference."
    source = "Matt Post, A Call for Clarity in Reporting BLEU Scores, 2018 (W18-6319)"

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return BLEU of each row of sums: answer length, reference length, common n-grams and n-grams of 4 orders.

        With "exp" smoothing: the k-th order without a common n-gram counts 1 / 2**k (Chen and Cherry, A Systematic
        Comparison of Smoothing Techniques for Sentence-Level BLEU, 2014, W14-3346, method 3). Without any common
        n-gram, or without an n-gram of each order, it is 0.
        """
        answer, reference = sums[:, 0], sums[:, 1]
        common, found = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]  # (b, orders)
        smoothed = np.where(common > 0, common, 0.5 ** np.cumsum(common == 0, axis=1))
        defined = np.logical_and(np.all(found > 0, axis=1), np.any(common > 0, axis=1))
        precision = np.log(np.where(defined[:, None], divided(smoothed, found), 1)).mean(axis=1)
        brevity = np.where((answer > 0) & (answer < reference), 1 - divided(reference, answer), 0)
        scores: NDArray[np.float64] = np.where(defined, 100 * np.exp(precision + brevity), 0.0)
        return scores

    def _scorers(self, references: list[str]) -> dict[Any, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, reference in enumerate(references):
            rows.setdefault(_tokenizer_for(reference), []).append(row)
        return {BLEU(tokenize=name, smooth_method="exp"): numbers for name, numbers in sorted(rows.items())}


def _tokenizer_for(reference: str) -> str:
    if reference.isascii():
        return "13a"
    if holds_han(reference):
        return "zh"
    return "char" if holds_unspaced(reference) else "13a"
