"""Answers that repeat themselves or say next to nothing, by the measures of Gopher (Rae et al. 2021, appendix A1.1)."""

from collections import Counter
from typing import Any

from tasks.contracts.cleaning_config import RepetitionStep
from tasks.data.cleaning.step import Dropped
from tasks.data.rows import Row, answer_of

REPEATED_LINES = "repeated lines"
REPEATED_PHRASE = "repeated phrase"
FEW_CHARACTERS = "few distinct characters"

_JUDGED_CHARS = 100_000
"""A longer answer is judged by its beginning, which bounds the memory."""

_CHARACTERS = 8
"""A phrase in text without spaces: four Chinese words, which have about two characters each. No phrase is shorter."""

_REPEATS = 3
"""What stands there twice is no repetition yet: in a short answer it easily covers the share."""

_UNDIVIDED_WORD_CHARS = 10
"""Text whose words are longer than this on average puts no spaces between words."""

_DISTINCT_CHARS = 100
_PREFIX_CHARS = 16
"""Many distinct characters among so few at the beginning make counting the others needless."""

_ROW_BITS = 6
"""Of so many answers (2^6) the arrays stay in the processor's cache."""

_HASH_BITS = 32 - _ROW_BITS


class Repetition:
    """Drops rows whose answer is mostly one line or one phrase over and over, or has hardly any distinct characters.

    The rejected answer of a preference pair is not judged: to repeat itself may be what it was rejected for.
    """

    name = "repetition"

    def __init__(self, section: RepetitionStep) -> None:
        self._section = section

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row, or why it is dropped."""
        result: list[Row | Dropped] = list(rows)
        unclear: list[_Answer] = []
        for number, row in enumerate(rows):
            text = answer_of(row)
            if len(text) < self._section.min_chars:
                continue
            text = text[:_JUDGED_CHARS]
            flaw = self._few_characters(text) or self._repeated_lines(text)
            if flaw is None:
                unclear.append(_Answer(number, text, max_share=self._section.max_ngram_share))
            else:
                result[number] = flaw
        for start in range(0, len(unclear), 1 << _ROW_BITS):
            some = unclear[start : start + (1 << _ROW_BITS)]
            for candidate in _with_a_frequent_phrase(some):
                answer = some[candidate]
                covered = answer.covered_by_most_frequent_phrase()
                if covered > self._section.max_ngram_share * len(answer.text):
                    detail = f"{min(covered, len(answer.text))} of {len(answer.text)} characters (max_ngram_share)"
                    result[answer.number] = Dropped(REPEATED_PHRASE, detail)
        return result

    def _few_characters(self, text: str) -> Dropped | None:
        needed = self._section.min_distinct_share * min(len(text), _DISTINCT_CHARS)
        if len(set(text[:_PREFIX_CHARS])) >= needed:
            return None
        distinct = len(set(text))
        if distinct >= needed:
            return None
        return Dropped(FEW_CHARACTERS, f"{distinct} in {len(text)} (min_distinct_share)")

    def _repeated_lines(self, text: str) -> Dropped | None:
        lines = text.split("\n")
        if len(set(lines)) == len(lines):
            return None
        repeated = sum(len(line) * (count - 1) for line, count in Counter(lines).items() if line.strip())
        if repeated <= self._section.max_line_share * len(text):
            return None
        return Dropped(REPEATED_LINES, f"{repeated} of {len(text)} characters (max_line_share)")


class _Answer:
    """An answer whose most frequent phrase is looked for.

    Attributes:
        number: of its row.
        text: as it is.
        plain: with one space between words, so that a phrase is the same across lines.
        too_often: a phrase that stands fewer times cannot cover more than the share.
    """

    __slots__ = ("_divided", "number", "plain", "text", "too_often")

    def __init__(self, number: int, text: str, max_share: float) -> None:
        self.number, self.text = number, text
        plain = text.replace("\n", " ").replace("\t", " ")
        self.plain = " ".join(plain.split()) if "  " in plain else plain
        self._divided = self.plain.count(" ") * _UNDIVIDED_WORD_CHARS >= len(text)
        self.too_often = _REPEATS if self._divided else max(_REPEATS, int(max_share * len(text) / _CHARACTERS) + 1)

    def covered_by_most_frequent_phrase(self) -> int:
        """Return how many characters it covers, 0 if no phrase is repeated."""
        if not self._divided:
            text = self.plain
            characters = Counter(text[start : start + _CHARACTERS] for start in range(len(text) - _CHARACTERS + 1))
            most = max(characters.values(), default=0)
            return most * _CHARACTERS if most >= _REPEATS else 0
        words = self.plain.split(" ")
        phrases = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
        repeated = ((" ".join(phrase), count) for phrase, count in phrases.items() if count >= _REPEATS)
        return max((count * len(phrase) for phrase, count in repeated if len(phrase) >= _CHARACTERS), default=0)


def _with_a_frequent_phrase(answers: list[_Answer]) -> list[int]:
    """Return the places of answers in which some 8 characters may stand as often as a phrase has to.

    All of all answers are hashed at once and sorted with their answer's place in the upper bits, which takes a tenth
    of the time of counting them. Equal hashes of different ones make candidates that the exact count clears.

    Args:
        answers: at most 2^6.
    """
    import numpy as np

    sizes = np.array([len(answer.plain) for answer in answers], dtype=np.int64)
    too_often = np.array([answer.too_often for answer in answers], dtype=np.int64)
    codes = np.frombuffer("".join([answer.plain for answer in answers]).encode("utf-32-le"), dtype=np.uint32)
    hashes: Any = codes * np.uint32(0x9E3779B1)
    for shift, factor in ((1, 0x85EBCA77), (2, 0xC2B2AE3D), (4, 0x27D4EB2F)):  # of 2, 4 and 8 characters
        hashes = hashes[:-shift] * np.uint32(factor) + (hashes[shift:] ^ (hashes[shift:] >> np.uint32(15)))
    places = np.repeat(np.arange(len(answers), dtype=np.uint32) << np.uint32(_HASH_BITS), sizes)
    keys = places[: len(hashes)] | (hashes >> np.uint32(_ROW_BITS))
    keys.sort()
    [repeated] = np.nonzero(keys[_REPEATS - 1 :] == keys[: 1 - _REPEATS])
    last = repeated + too_often[keys[repeated] >> np.uint32(_HASH_BITS)] - 1
    repeated, last = repeated[last < len(keys)], last[last < len(keys)]
    frequent = keys[repeated][keys[last] == keys[repeated]]
    return [int(place) for place in np.unique(frequent >> np.uint32(_HASH_BITS))]
