"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum: overlap of words, of word pairs, and of longest common subsequences."""

from collections import Counter

from tasks.evaluation.metrics.mean_metric import MeanMetric
from tasks.evaluation.metrics.overlap import common_ngrams, f1, subsequence_length, subsequence_positions
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer


class Rouge(MeanMetric):
    """Mean F1 over the examples, 0 to 1; on ASCII text the figures of the package rouge-score, without its tables.

    No stemming: the Porter stemmer knows English only, and code identifiers are no English. ROUGE-2 of an answer of
    one word is 0, as the field has it, and so is every score of an answer without a word. ROUGE-Lsum holds each line
    of the reference against all lines of the answer; where both have one line it is ROUGE-L.
    """

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    summary = "F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, 0 to 1, with CJK characters as words."
    source = "Chin-Yew Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004 (W04-1013)"

    spelling = f"ROUGE|score:f1|case:lower|stem:no|tok:{WordOrCharacterTokenizer.signature}|smooth:none|version:2"

    def score_example(self, answer: str, reference: str) -> tuple[float, float, float, float]:
        """Return the F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum."""
        tokenize = WordOrCharacterTokenizer.tokenize
        expected, given = tokenize(reference), tokenize(answer)
        if not expected or not given:
            return 0.0, 0.0, 0.0, 0.0
        words = f1(common_ngrams(expected, given, 1), len(expected), len(given))
        word_pairs = f1(common_ngrams(expected, given, 2), len(expected) - 1, len(given) - 1)
        subsequence = f1(subsequence_length(expected, given), len(expected), len(given))
        if "\n" not in reference and "\n" not in answer:
            return words, word_pairs, subsequence, subsequence
        lines = [[tokenize(line) for line in text.split("\n")] for text in (reference, answer)]
        return words, word_pairs, subsequence, f1(_union_of_subsequences(*lines), len(expected), len(given))


def _union_of_subsequences(expected: list[list[str]], given: list[list[str]]) -> int:
    """Return how many tokens of the reference's lines stand in a subsequence common with any line of the answer.

    As ROUGE 1.5.5 and rouge-score count: no token more often than it occurs in the answer.
    """
    left = Counter(token for line in given for token in line)
    common = 0
    for line in expected:
        found = sorted({position for other in given for position in subsequence_positions(line, other)})
        for token in (line[position] for position in found):
            if left[token] > 0:
                left[token] -= 1
                common += 1
    return common
