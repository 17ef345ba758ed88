"""Where personal data stands in a text, and which kind wins where two of them claim the same characters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Offsets = tuple[int, int]
"""Start and end of a piece of text in characters; the end is not part of it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of personal data in a text.

    Attributes:
        kind: a kind of the configuration (email, phone, …) or the name of a user pattern.
        start: offset of its first character.
        end: offset after its last character.
    """

    kind: str
    start: int
    end: int


def merged(accepted: Sequence[Span], kind: str, found: Iterable[Offsets]) -> list[Span]:
    """Add what one more kind found where none of the kinds before it found anything.

    Args:
        accepted: spans in order of their start that do not overlap.
        kind: the kind of `found`.
        found: offsets in order of their start that do not overlap.

    Returns:
        The spans of both in order of their start, without overlaps, in time linear in their number.
    """
    result: list[Span] = []
    waiting: Iterator[Span] = iter(accepted)
    upcoming = next(waiting, None)
    taken_until = 0
    for start, end in found:
        while upcoming is not None and upcoming.start <= start:
            result.append(upcoming)
            taken_until = upcoming.end
            upcoming = next(waiting, None)
        if start >= taken_until and (upcoming is None or end <= upcoming.start):
            result.append(Span(kind, start, end))
            taken_until = end
    if upcoming is not None:
        result.append(upcoming)
        result.extend(waiting)
    return result


def without_overlaps(found: list[Offsets]) -> list[Offsets]:
    """Put offsets in order and keep the first of those that overlap; of two that start together, the longer."""
    kept: list[Offsets] = []
    for start, end in sorted(found, key=lambda offsets: (offsets[0], -offsets[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept
