"""What two answers have in common, word by word."""

from difflib import SequenceMatcher
from typing import NamedTuple

import regex

_LONGEST_TOKENS = 600
_PIECE = regex.compile(  # no longer than 40, so that 600 of them can be read
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}{0,8}|[\w\p{M}]{1,40}|\s{1,40}|.",
    regex.S,
)


class Piece(NamedTuple):
    """A stretch of a text, and whether the other text has it in the same order."""

    text: str
    is_common: bool


_LEFT_OUT = Piece("…", is_common=True)


def compared(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Divide two texts into what they have in common and what they have not.

    A word is a unit, a character in scripts without spaces, and so are white space and every sign. Of long texts the
    600 units around the first difference are compared, and … stands where something is left out.
    """
    all_left, all_right = _PIECE.findall(first), _PIECE.findall(second)
    start = _window_start(all_left, all_right)
    end = start + _LONGEST_TOKENS
    left, right = all_left[start:end], all_right[start:end]
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    before = [_LEFT_OUT] * (start > 0)
    return (
        before + _pieces(left, [(block.a, block.size) for block in blocks]) + [_LEFT_OUT] * (end < len(all_left)),
        before + _pieces(right, [(block.b, block.size) for block in blocks]) + [_LEFT_OUT] * (end < len(all_right)),
    )


def _window_start(left: list[str], right: list[str]) -> int:
    """Return where to begin, so that the first difference is in the middle if there is as much on both sides of it."""
    differences = (place for place, (one, other) in enumerate(zip(left, right, strict=False)) if one != other)
    first = next(differences, min(len(left), len(right)))
    longest = max(len(left), len(right))
    return 0 if left == right else max(0, min(first - _LONGEST_TOKENS // 2, longest - _LONGEST_TOKENS))


def _pieces(tokens: list[str], common: list[tuple[int, int]]) -> list[Piece]:
    pieces, at = [], 0
    for start, size in common:
        for begin, end, is_common in ((at, start, False), (start, start + size, True)):
            if begin < end:
                pieces.append(Piece("".join(tokens[begin:end]), is_common))
        at = start + size
    return pieces
