"""Answers that repeat themselves or say next to nothing, by the measures of Gopher (Rae et al. 2021, appendix A1.1)."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tasks.contracts.cleaning_config import RepetitionStep
from tasks.data.cleaning.step import Dropped
from tasks.data.rows import Row

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

_WORDS = 4
_ROW_BITS = 7
_LENGTH_BITS = 8
_LONG = (1 << _LENGTH_BITS) - 1
_BLOCK_CHARS = 60_000
_POWERS = _BLOCK_CHARS + _JUDGED_CHARS + (1 << _ROW_BITS)
_BASE, _MIXER = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD
_SPACES = re.compile("  +")


class Repetition:
    """Drops rows whose answer is mostly one line or one phrase over and over, or has hardly any distinct characters.

    The rejected answer of a preference pair is not judged: to repeat itself may be what it was rejected for.
    """

    name = "repetition"

    def __init__(self, section: RepetitionStep) -> None:
        self._section = section

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row, or why it is dropped."""
        section, result = self._section, list[Row | Dropped](rows)
        numbers, texts = list[int](), list[str]()
        for number, row in enumerate(rows):
            text = row["messages"][-1]["content"]
            if len(text) < section.min_chars:
                continue
            text = text[:_JUDGED_CHARS]
            flaw = self._few_characters(text) or (self._repeated_lines(text) if "\n" in text else None)
            if flaw is None:
                numbers.append(number)
                texts.append(text)
            else:
                result[number] = flaw
        for start, stop in _blocks(texts):
            for candidate in _with_a_frequent_phrase(texts[start:stop], section.max_ngram_share):
                text = texts[start + candidate]
                covered = _covered_by_most_frequent_phrase(text)
                if covered > section.max_ngram_share * len(text):
                    detail = f"{min(covered, len(text))} of {len(text)} characters (max_ngram_share)"
                    result[numbers[start + candidate]] = Dropped(REPEATED_PHRASE, detail)
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


def _plain(text: str) -> str:
    """Return a text with one space between words, so that a phrase is the same across lines."""
    plain = text.replace("\n", " ").replace("\t", " ")
    return _SPACES.sub(" ", plain) if "  " in plain else plain


def _covered_by_most_frequent_phrase(text: str) -> int:
    """Return how many characters of a text it covers, 0 if no phrase is repeated."""
    plain = _plain(text)
    if plain.count(" ") * _UNDIVIDED_WORD_CHARS < len(text):
        characters = Counter(plain[start : start + _CHARACTERS] for start in range(len(plain) - _CHARACTERS + 1))
        most = max(characters.values(), default=0)
        return most * _CHARACTERS if most >= _REPEATS else 0
    words = plain.split(" ")
    phrases = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    repeated = ((" ".join(phrase), count) for phrase, count in phrases.items() if count >= _REPEATS)
    return max((count * len(phrase) for phrase, count in repeated if len(phrase) >= _CHARACTERS), default=0)


def _blocks(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Yield where blocks of texts begin and end whose arrays stay in the processor's cache."""
    start = chars = 0
    for number, text in enumerate(texts, 1):
        chars += len(text)
        if number - start == 1 << _ROW_BITS or chars >= _BLOCK_CHARS or number == len(texts):
            yield start, number
            start, chars = number, 0


def _with_a_frequent_phrase(texts: list[str], max_share: float) -> list[int]:
    """Return the places of texts in which some phrase is so frequent that it may cover more than a share.

    The phrases of all texts are hashed at once and sorted as numbers of 64 bits: the text's place, the phrase's length
    and a hash (Rabin and Karp 1987, modulo 2^64). That takes a tenth of the time of counting them. Equal hashes of
    different phrases make candidates that the exact count clears.

    Args:
        texts: at most 2^7 that have at most `_POWERS` characters together, none of which holds NUL.
        max_share: in characters of the text.
    """
    import numpy as np

    joined = "\0".join([*texts, ""]).replace("\n", " ").replace("\t", " ")
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
    is_space = codes == ord(" ")
    again = is_space[1:] & is_space[:-1]
    if again.any():
        left = np.append(~again, True)
        codes, is_space = codes[left], is_space[left]
    first = np.append(0, np.flatnonzero(codes == 0) + 1)  # of each text, and behind the last
    sizes, chars = np.diff(first), np.array(list(map(len, texts)))
    divided = np.add.reduceat(is_space, first[:-1], dtype=np.int64) * _UNDIVIDED_WORD_CHARS >= chars
    place = np.repeat(np.arange(len(texts)), sizes)
    begins = np.repeat(~divided, sizes)
    begins[1:] |= is_space[:-1]
    begins[first[:-1]] = True
    begin, end = _phrases(np.flatnonzero(begins), divided[place], first[place + 1])
    of = place[begin]
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.multiply(codes, powers[: len(codes)], out=sums[1:])
    np.cumsum(sums[1:], out=sums[1:])
    hashes: Any = (sums[end] - sums[begin]) * inverses[begin]
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(_MIXER) >> np.uint64(_ROW_BITS + _LENGTH_BITS)
    lengths = np.minimum(end - begin, _LONG).astype(np.uint64)
    keys = (
        of.astype(np.uint64) << np.uint64(64 - _ROW_BITS) | lengths << np.uint64(64 - _ROW_BITS - _LENGTH_BITS) | hashes
    )
    keys.sort()
    again = keys[_REPEATS - 1 :][keys[_REPEATS - 1 :] == keys[: 1 - _REPEATS]]
    if not len(again):
        return []
    repeated, times = np.unique(again, return_counts=True)
    rows = (repeated >> np.uint64(64 - _ROW_BITS)).astype(np.int64)
    lengths = repeated >> np.uint64(64 - _ROW_BITS - _LENGTH_BITS) & np.uint64(_LONG)
    frequent = (times + _REPEATS - 1) * lengths > max_share * chars[rows]
    return [int(row) for row in np.unique(rows[frequent | (lengths == _LONG)])]


def _phrases(begin: Any, is_divided: Any, behind: Any) -> tuple[Any, Any]:
    """Return where phrases begin and end: four words, or eight characters where words are not divided.

    Args:
        begin: (words,) where words begin, or all places of texts whose words are not divided.
        is_divided: (places,) whether the words of the text at each place are.
        behind: (places,) where the text behind that begins.
    """
    import numpy as np

    ends = np.append(begin[_WORDS:] - 1, np.full(min(_WORDS, len(begin)), len(behind) - 1))
    end = np.where(is_divided[begin], ends, begin + _CHARACTERS)
    whole = (end - begin >= _CHARACTERS) & (end < behind[begin])
    return begin[whole], end[whole]


@functools.cache
def _powers() -> Any:
    """Return the powers of an odd number and of its inverse, modulo 2^64."""
    import numpy as np

    factors = np.ones((2, _POWERS + 1), np.uint64)
    factors[0, 1:], factors[1, 1:] = _BASE, pow(_BASE, -1, 1 << 64)
    return np.cumprod(factors, axis=1)
