"""What two answers have in common, word by word."""

from difflib import SequenceMatcher
from typing import NamedTuple

import regex

_LONGEST_TOKENS = 600
_PIECE = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*|[\w\p{M}]+|\s+|.", regex.S
)


class Piece(NamedTuple):
    """A stretch of a text, and whether the other text has it in the same order."""

    text: str
    is_common: bool


def compared(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Divide two texts into what they have in common and what they have not; long ones are compared at the beginning.

    A word is a unit, a character in scripts without spaces, and so are white space and every sign.
    """
    left, right = _PIECE.findall(first)[:_LONGEST_TOKENS], _PIECE.findall(second)[:_LONGEST_TOKENS]
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return (
        _pieces(left, [(block.a, block.size) for block in blocks]),
        _pieces(right, [(block.b, block.size) for block in blocks]),
    )


def _pieces(tokens: list[str], common: list[tuple[int, int]]) -> list[Piece]:
    pieces, at = [], 0
    for start, size in common:
        for begin, end, is_common in ((at, start, False), (start, start + size, True)):
            if begin < end:
                pieces.append(Piece("".join(tokens[begin:end]), is_common))
        at = start + size
    return pieces
