"""ROUGE-1, ROUGE-2 and ROUGE-L: overlap of words, of word pairs, and the longest common subsequence."""

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.hidden_modules import hidden_modules
from tasks.evaluation.metrics.text_metric import TextMetric
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer

# rouge_score takes a stemmer from nltk 3.10, which imports these (2 s here) for collocations and a classifier.
with hidden_modules("scipy.stats", "sklearn"):
    from rouge_score.rouge_scorer import RougeScorer


class Rouge(TextMetric):
    """Mean F1 over the examples, 0 to 1.

    No stemming: the Porter stemmer knows English only, and code identifiers are no English. ROUGE-2 of an answer of
    one word is 0, as the field has it, and so is every score of an answer without a word.
    """

    names = ("rouge1", "rouge2", "rougeL")
    summary = "F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1, with CJK characters as words."
    source = "Chin-Yew Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004 (W04-1013)"

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the mean of the examples' F1."""
        means: NDArray[np.float64] = sums[:, 0] / examples
        return means

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, Any]:
        scorer = RougeScorer(list(self.names), tokenizer=WordOrCharacterTokenizer())
        pairs = [scorer.score(reference, answer) for answer, reference in zip(predictions, references, strict=True)]
        statistics = {name: np.array([[pair[name].fmeasure] for pair in pairs], dtype=float) for name in self.names}
        return {
            **{name: float(statistics[name].mean()) for name in self.names},
            "statistics": statistics,
            "signature": f"ROUGE|score:f1|case:lower|stem:no|tok:{WordOrCharacterTokenizer.signature}|smooth:none"
            f"|version:{version('rouge-score')}|examples:{len(pairs)}",
        }
