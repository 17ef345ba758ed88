"""BLEU: n-gram precision of the corpus with a brevity penalty."""

from typing import Any

from sacrebleu.metrics import BLEU

from tasks.evaluation.metrics.sufficient_statistics import SacrebleuMetric
from tasks.evaluation.metrics.tokenization import holds_han


class Bleu(SacrebleuMetric):
    """Corpus BLEU-4, 0 to 100, with exponential smoothing.

    Tokenizer "13a"; "zh" (Han characters one by one) if any reference holds a Han character.
    """

    names = ("bleu",)
    summary = "Corpus BLEU of sacrebleu, 0 to 100, tokenizer 13a, or zh where references are Chinese."
    source = "Matt Post, A Call for Clarity in Reporting BLEU Scores, 2018 (W18-6319)"

    def _scorer(self, references: list[str]) -> Any:
        return BLEU(tokenize="zh" if holds_han(references) else "13a", smooth_method="exp")
