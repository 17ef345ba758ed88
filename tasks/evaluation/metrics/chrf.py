"""chrF: F-score of character n-grams, which needs no tokenizer and so suits every script."""

from typing import Any

from sacrebleu.metrics import CHRF

from tasks.evaluation.metrics.sufficient_statistics import SacrebleuMetric


class Chrf(SacrebleuMetric):
    """Corpus chrF2 (character n-grams up to 6, recall counted twice), 0 to 100."""

    names = ("chrf",)
    summary = "Corpus chrF2 of sacrebleu, 0 to 100."
    source = "Maja Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015 (W15-3049)"

    def _scorer(self, references: list[str]) -> Any:
        return CHRF()
