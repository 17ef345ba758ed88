"""Answers that are right or wrong as a whole, and the words that a short answer has in common with the right one."""

import unicodedata

from tasks.evaluation.metrics.mean_metric import MeanMetric
from tasks.evaluation.metrics.overlap import common_ngrams, f1
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer

_ARTICLES = frozenset(("a", "an", "the"))


class Exact(MeanMetric):
    """Exact match (composed, outer white space and line ends set aside) and token F1, means over the examples, 0 to 1.

    Token F1 is that of question answering: lower-cased words without punctuation and English articles, each counted as
    often as the rarer side has it. Where neither side has a word, it is whether the texts are the same.
    """

    names = ("exact_match", "token_f1")
    summary = "Share of exact matches, and F1 of common words without articles; CJK characters are words."
    source = "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016 (D16-1264)"
    spelling = f"exact|case:kept for exact_match, lower for token_f1|tok:{WordOrCharacterTokenizer.signature}|version:1"

    def score_example(self, answer: str, reference: str) -> tuple[float, float]:
        """Return whether the answer is the reference, and their token F1."""
        same = float(_plain(answer) == _plain(reference))
        expected, given = _words(reference), _words(answer)
        if not expected and not given:
            return same, same
        return same, f1(common_ngrams(expected, given, 1), len(expected), len(given))


def _plain(text: str) -> str:
    return "\n".join(unicodedata.normalize("NFC", text).strip().splitlines())


def _words(text: str) -> list[str]:
    return [token for token in WordOrCharacterTokenizer.tokenize(text) if token not in _ARTICLES]
