"""Typed pseudonyms: within one conversation the same value has the same one, for example <EMAIL_1>."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import ahocorasick_rs

from tasks.data.personal.folding import folded
from tasks.data.personal.spans import Offsets, Span, merged

_LABELS = {"name_with_age": "NAME"}
_LOOKS_LIKE_ONE = re.compile(r"<([A-Z_]+)_([0-9]{1,9})>")
_NOT_A_DIGIT = re.compile("[^0-9]")
_NOT_HEXADECIMAL = re.compile("[^0-9a-f]")
_CHINESE_MOBILE = re.compile("86(1[3-9][0-9]{9})")


class Pseudonyms:
    """The names given out in one conversation."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take the texts of the conversation, whose own look-alikes of pseudonyms are never given out."""
        self._taken: set[tuple[str, int]] = set()
        for text in texts:
            self._taken.update((label, int(number)) for label, number in _LOOKS_LIKE_ONE.findall(text))
        self._names: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}

    def name_of(self, kind: str, value: str) -> str:
        """Return the pseudonym of a value; spellings of one value (+86 138-0013-8000, 13800138000) share theirs."""
        label = _LABELS.get(kind, kind.upper())
        key = (label, _normal(kind, value))
        name = self._names.get(key)
        if name is None:
            number = self._last.get(label, 0) + 1
            while (label, number) in self._taken:
                number += 1
            self._last[label] = number
            name = self._names[key] = f"<{label}_{number}>"
        return name


def replaced(texts: list[str], spans: list[Sequence[Span]]) -> dict[str, str]:
    """Return each text of a conversation with pseudonyms in the place of what was found in any of them.

    A value is replaced wherever it stands in the conversation: the name beside an age comes again without the age, a
    password without the word password.

    Args:
        texts: all texts of one conversation.
        spans: what was found in each.
    """
    pseudonyms = Pseudonyms(texts)
    names: dict[str, str] = {}
    for text, found in zip(texts, spans, strict=True):
        for span in found:
            value = text[span.start : span.end]
            if value not in names:
                names[value] = pseudonyms.name_of(span.kind, value)
    find = _finder(list(names))
    result: dict[str, str] = {}
    for text, found in zip(texts, spans, strict=True):
        again = (
            (start, end)
            for start, end in find(text)
            if not (_goes_on(text[start], text[start - 1 : start]) or _goes_on(text[end - 1], text[end : end + 1]))
        )
        pieces: list[str] = []
        position = 0
        for span in merged(found, "", again):
            pieces += (text[position : span.start], names[text[span.start : span.end]])
            position = span.end
        result[text] = "".join(pieces) + text[position:]
    return result


def _finder(values: list[str]) -> Callable[[str], Iterator[Offsets]]:
    """Return what finds values in a text: the leftmost, and of those that begin there the longest."""
    if len(values) == 1:
        [value] = values
        return lambda text: _places(text, value)
    # Of the library's automata the one that is built soonest; it reads few texts.
    automaton = ahocorasick_rs.AhoCorasick(
        values,
        matchkind=ahocorasick_rs.MatchKind.LeftmostLongest,
        implementation=ahocorasick_rs.Implementation.NoncontiguousNFA,
    )
    return lambda text: ((start, end) for _, start, end in automaton.find_matches_as_indexes(text))


def _places(text: str, value: str) -> Iterator[Offsets]:
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        yield start, end
        start = text.find(value, end)


def _goes_on(edge: str, neighbour: str) -> bool:
    """Tell whether a word or number of ASCII goes on beyond the edge of a value."""
    return _is_word(edge) and _is_word(neighbour)


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def _normal(kind: str, value: str) -> str:
    """Return what the spellings of one value have in common."""
    plain = folded(value)[0]
    if kind == "phone":
        digits = _NOT_A_DIGIT.sub("", plain.replace("(0)", "")).removeprefix("00")
        return digits.removeprefix("86") if _CHINESE_MOBILE.fullmatch(digits) else digits
    if kind in ("bank_card", "china_id"):
        return re.sub("[ -]", "", plain).upper()
    if kind == "mac_address":
        return _NOT_HEXADECIMAL.sub("", plain.lower())
    if kind == "ip_address":
        return ipaddress.ip_address(plain).compressed
    return plain.casefold() if kind in ("email", "name_with_age") else plain
