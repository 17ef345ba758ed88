"""What is seen of answers without knowing the right ones: length, repetition, refusals, emptiness."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.mean_metric import MeanMetric
from tasks.evaluation.metrics.overlap import ngrams
from tasks.evaluation.metrics.sufficient_statistics import divided
from tasks.evaluation.metrics.text_metric import TextMetric
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer

_REPEATED_NGRAM = 4
_OPENING_CHARS = 200
# The way chat models begin when they do not do what they were asked; only an answer's beginning is looked at.
_REFUSAL = re.compile(
    r"""\b(?:
      i(?:['’]m|\ am)\ (?:(?:really|very|so)\ )?(?:sorry|afraid|unable|not\ able)
    | i\ (?:can(?:['’]t|not|\ not)|could\ not|won['’]t|will\ not|am\ not\ going\ to)\ (?:\w+\ ){0,2}?
      (?:help|assist|answer|provide|comply|do|be\ able|fulfil|fulfill|write|create|generate|share|discuss|engage)
    | as\ an\ (?:ai|artificial\ intelligence)(?:\ language)?(?:\ model|\ assistant)?\b
    | (?:es\ )?tut\ mir\ leid | ich\ kann\ (?:\w+\ ){0,3}?nicht
    | je\ (?:suis\ désolée?|ne\ peux\ pas) | lo\ siento | no\ puedo\ (?:ayudar|responder|proporcionar)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_CHINESE_REFUSAL = re.compile(
    r"(?:抱歉|对不起|對不起|很遗憾|很遺憾|我(?:不能|无法|無法|没办法|沒辦法)|作为(?:一个|一個)?(?:AI|人工智能))"
)


class LengthRatio(TextMetric):
    """Words of all answers to words of all references; 0 where the references have none."""

    names = ("length_ratio",)
    summary = "Words of the answers divided by words of the references, over the whole set."
    source = "the length ratio that sacrebleu reports beside BLEU"

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the ratio of the sums: words of answers, words of references."""
        return divided(sums[:, 0], sums[:, 1])

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, Any]:
        tokenize = WordOrCharacterTokenizer.tokenize
        pairs = zip(predictions, references, strict=True)
        words = np.array([[len(tokenize(text)) for text in pair] for pair in pairs], dtype=float)  # (n, 2)
        return {
            "length_ratio": float(self.score_sums(words.sum(axis=0, keepdims=True), len(words))[0]),
            "statistics": {"length_ratio": words},
            "signature": f"length_ratio|tok:{WordOrCharacterTokenizer.signature}|version:1|examples:{len(words)}",
        }


class AnswerShape(MeanMetric):
    """Repetition within an answer, refusals and empty answers: means over the examples, 0 to 1, the lower the better.

    Repetition is the share of an answer's 4-grams that stood in it before (1 - distinct / all; Welleck et al., Neural
    Text Generation with Unlikelihood Training, 2019, seq-rep-4). A refusal is recognised by its wording in English,
    German, French, Spanish and Chinese, which no rule does completely; where the reference refuses too, it is none.
    """

    names = ("repetition", "refusal_rate", "empty_rate")
    summary = "Share of repeated 4-grams, of refusals by their wording, and of answers without a visible sign."
    source = "Welleck et al., Neural Text Generation with Unlikelihood Training, 2019 (arXiv 1908.04319)"
    spelling = f"answer shape|repeated:{_REPEATED_NGRAM}-grams|tok:{WordOrCharacterTokenizer.signature}|version:1"

    def score_example(self, answer: str, reference: str) -> tuple[float, float, float]:
        """Return the share of repeated 4-grams, and whether the answer refuses or is empty."""
        spoken = ngrams(WordOrCharacterTokenizer.tokenize(answer), _REPEATED_NGRAM)
        repeated = 1 - len(set(spoken)) / len(spoken) if spoken else 0.0
        empty = not any(character.isprintable() and not character.isspace() for character in answer)
        return repeated, float(refuses(answer) and not refuses(reference)), float(empty)


def refuses(text: str) -> bool:
    """Return whether a text begins as a refusal does."""
    opening = text[:_OPENING_CHARS]
    return bool(_REFUSAL.search(opening) or _CHINESE_REFUSAL.search(opening))
