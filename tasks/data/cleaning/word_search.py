"""Any number of words found in one pass over a text (Aho-Corasick), in time that grows with the text alone."""

from collections.abc import Iterator, Sequence

_WINDOW_CHARS = 65_536
"""Longer texts are searched in pieces, so that a text of nothing but matches does not fill the memory."""


class WordSearch:
    """Finds words in texts: of those that overlap, the leftmost, and of those that begin there the longest.

    Args:
        words: none of them empty.
        whole_words: a word that begins or ends with a letter or digit counts only where no other one touches it.
            Scripts that put no spaces between words (Chinese, Japanese, Korean, Thai) are found anywhere.
        ignore_case: letters are compared in lower case.
    """

    def __init__(self, words: Sequence[str], whole_words: bool, ignore_case: bool) -> None:
        from ahocorasick_rs import AhoCorasick, MatchKind

        spelled = [_lower(word) for word in words] if ignore_case else list(words)
        self._ignore_case = ignore_case
        self._longest = max(len(word) for word in words)
        self._bounded = [
            (whole_words and _needs_boundary(word[0]), whole_words and _needs_boundary(word[-1])) for word in spelled
        ]
        # With boundaries, all that overlap: the longest word may not be a whole one where a shorter one is.
        self._overlapping = any(map(any, self._bounded))
        kind = MatchKind.Standard if self._overlapping else MatchKind.LeftmostLongest
        self._automaton = AhoCorasick(spelled, matchkind=kind)

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield (number of the word, start, end) from left to right, without overlaps; offsets count characters."""
        searched = _lower(text) if self._ignore_case else text
        start = 0
        while start < len(searched):
            limit = start + _WINDOW_CHARS
            window = searched[start : limit + self._longest]
            found = self._automaton.find_matches_as_indexes(window, overlapping=self._overlapping)
            end = start
            if found:
                for number, first, last in sorted(found, key=_leftmost_longest):
                    first, last = first + start, last + start
                    if first >= limit:
                        break
                    if first >= end and self._is_whole(searched, number, first, last):
                        yield number, first, last
                        end = last
            start = max(limit, end)

    def _is_whole(self, text: str, number: int, first: int, last: int) -> bool:
        before, after = self._bounded[number]
        if before and first > 0 and _needs_boundary(text[first - 1]):
            return False
        return not (after and last < len(text) and _needs_boundary(text[last]))


def _leftmost_longest(match: tuple[int, int, int]) -> tuple[int, int, int]:
    number, first, last = match
    return first, -last, number


def _lower(text: str) -> str:
    """Return `text` in lower case with every character in its place (İ alone would become two; ς is a final σ)."""
    if text.isascii():
        return text.lower()
    return text.replace("İ", "i").lower().replace("ς", "σ")


def _needs_boundary(character: str) -> bool:
    """Tell whether it is a letter or digit of a script that divides words."""
    return character.isalnum() and not _is_undivided(character)


def _is_undivided(character: str) -> bool:
    return (
        "\u2e80" <= character <= "\ud7ff"  # CJK, kana, Hangul (whose particles touch the word)
        or "\uf900" <= character <= "\ufaff"
        or "\u0e00" <= character <= "\u0eff"  # Thai, Lao
        or "\u1000" <= character <= "\u109f"  # Burmese
        or "\u1780" <= character <= "\u17ff"  # Khmer
        or "\U00020000" <= character <= "\U0003ffff"
    )
