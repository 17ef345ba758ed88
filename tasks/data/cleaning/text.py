"""Characters: text that was decoded wrongly is repaired, characters are composed, and white space is made plain."""

import functools
import re
import unicodedata
from itertools import islice
from typing import Any

from tasks.contracts.cleaning_config import UnicodeStep, WhitespaceStep
from tasks.data.cleaning.gate import TEXT_END, ranges_of
from tasks.data.cleaning.step import Dropped, with_texts
from tasks.data.rows import Row

MAX_MARKS = 30
"""Combining marks after one character that are kept (UAX #15, Stream-Safe Text: no language needs more).

Normalisation sorts a run of marks in quadratic time, so a run without end would stop the machine.
"""

_MARK_SCAN_CHARS = 1_000
"""In a text so short, a run of marks costs less than looking for it."""

_FEW = 8
_CONTEXT_CHARS = 6
_SEGMENT_CHARS = 100_000
"""A line is repaired in pieces of so many characters at most, which bounds what the repair holds in memory."""

_COMMON_SIGNS = "\xa0\xad·´–—―…’‘“”•°±²³≤≥®™©§«»‹›¡¿×"
"""Signs that mojibake is full of and that good text has too. ftfy changes no text with these alone (tested).

Only with × and · it would, where good text is far likelier: ×“ could be one Hebrew letter, ·±• one of another script.
"""

_CONTROL = "\x00-\x08\x0b\x0e-\x1f\x7f"
_REMOVED = "\ufeff\ufff9-\ufffc\u206a-\u206f"
"""A byte order mark inside a text, marks of interlinear annotation and deprecated format characters: never visible."""

_TERMINAL = re.compile(r"\x1b\[[0-9;]*[a-zA-Z]")
_UNWANTED = re.compile(f"[{_CONTROL}{_REMOVED}]+")
_UNWANTED_ASCII = re.compile(f"[{_CONTROL}]")

# Ordinary letters and signs, each of them composed and none that composes with another: ASCII, Latin, Cyrillic, general
# punctuation, kana and the CJK signs, ideographs and syllables.
_PLAIN = (
    (0x01, 0x7F), (0xA0, 0x2FF), (0x400, 0x482), (0x48A, 0x52F), (0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF),
    (0x2190, 0x21CC), (0x2200, 0x2203), (0x2460, 0x27FF), (0x3000, 0x3029), (0x3041, 0x3096), (0x309D, 0x30FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFFDC), (0x1F300, 0x1FAFF),
)  # fmt: skip
_LIGATURES = dict(zip(range(0xFB00, 0xFB07), ("ff", "fi", "fl", "ffi", "ffl", "ſt", "st"), strict=True))
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0).isalnum()}
_WIDE_LETTER = re.compile("[０-９Ａ-Ｚａ-ｚ]")
_BLANKS = re.compile(r"[ \t]+")
_SPACES = "\x0b\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space beside what RE2 calls so."""


class Unicode:
    """Repairs mojibake with ftfy, removes control characters, takes Latin ligatures apart (ﬁ → fi), composes (NFC).

    Of ftfy only the repair of encodings is used: its other fixes (straight quotes, narrow punctuation, entities) would
    change good Chinese text and code.
    """

    name = "unicode"

    def __init__(self, section: UnicodeStep) -> None:
        self._repair = section.repair
        self._width = section.width
        self.signs = [_unusual(section.repair)]
        if section.width:
            self.signs.append(_WIDE_LETTER.pattern)

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row with its texts repaired; none is dropped."""
        return [with_texts(row, self._clean_text) for row in rows]

    def _clean_text(self, text: str) -> str:
        if text.isascii():
            if self._repair and _UNWANTED_ASCII.search(text):
                return _UNWANTED.sub("", _TERMINAL.sub("", text))
            return text
        if self._repair and _suspicious().search(text):
            text = _repaired(text)
        if self._width and _WIDE_LETTER.search(text):
            text = text.translate(_WIDE)
        if len(text) > _MARK_SCAN_CHARS:
            text = _mark_flood().sub(r"\1", text)
        return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


@functools.cache
def _unusual(repair: bool) -> str:
    """Return an expression of the characters one of which every text has that the step changes, width apart."""
    plain = "".join(chr(code) for first, last in _PLAIN for code in range(first, last + 1))
    return f"[^{ranges_of(TEXT_END + (_suspicious().sub('', plain) if repair else plain))}]"


@functools.cache
def _suspicious() -> re.Pattern[str]:
    """Return a pattern of the characters one of which every text that is repaired here has.

    Without it, ftfy's own check (thirty alternatives tried at each character) would cost every Chinese text far more.
    """
    from ftfy.badness import MOJIBAKE_CATEGORIES

    kinds = ("c1", "bad", "currency", "start_punctuation", "end_punctuation", "numeric", "box")
    signs = "".join(MOJIBAKE_CATEGORIES[kind] for kind in kinds)
    signs = "".join(sign for sign in signs if sign not in _COMMON_SIGNS)
    letters = MOJIBAKE_CATEGORIES["upper_accented"] + MOJIBAKE_CATEGORIES["lower_accented"]
    # Letters with which mojibake of Greek, Cyrillic and Arabic words begins; the rest of it is in the kinds above.
    words = "ВГРСЂβΒΓΞΟÙ"
    return re.compile(f"[{_CONTROL}{_REMOVED}ﬀ-ﬆ{words}{letters}{signs}]")


def _repaired(text: str) -> str:
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.badness import is_bad

    if any(is_bad(part) for part in _around_suspicious(text)):
        settings = TextFixerConfig(explain=False)
        text = "\n".join(
            line if line.isascii() else "".join(fix_encoding(part, settings) for part in _parts(line))
            for line in text.split("\n")
        )
    if "\x1b" in text:
        text = _TERMINAL.sub("", text)
    return _UNWANTED.sub("", text).translate(_LIGATURES)


def _around_suspicious(text: str) -> list[str]:
    """Return the surroundings of suspicious characters, or the whole text if it is full of them.

    ftfy looks at no more than six characters at once, so nothing is missed, and a text with a few × or é costs little.
    """
    places = [match.start() for match in islice(_suspicious().finditer(text), _FEW + 1)]
    if len(places) > _FEW:
        return [text]
    return [text[max(0, place - _CONTEXT_CHARS) : place + _CONTEXT_CHARS] for place in places]


def _parts(line: str) -> list[str]:
    return [line[start : start + _SEGMENT_CHARS] for start in range(0, len(line), _SEGMENT_CHARS)]


def has_mark_flood(text: str) -> bool:
    """Tell whether a text has more than `MAX_MARKS` combining marks in a row: composing it may take quadratic time."""
    return not text.isascii() and _mark_flood().search(text) is not None


@functools.cache
def _mark_flood() -> Any:
    import regex

    return regex.compile(rf"(\p{{M}}{{{MAX_MARKS}}})\p{{M}}+")


class Whitespace:
    """Ends lines with a line feed, takes white space off the end of a text and bounds the empty lines in a row."""

    name = "whitespace"

    def __init__(self, section: WhitespaceStep) -> None:
        self._max_line_ends = section.max_empty_lines + 1
        self._collapse = section.collapse_spaces
        # Possessive, so that a long run of blanks is read once.
        self._gap = re.compile(rf"\n(?:[ \t]*+\n){{{self._max_line_ends},}}")
        self._line_ends = "\n" * self._max_line_ends
        self.signs = [r"\r", rf"[\s{_SPACES}]{TEXT_END}", rf"\n(?:[ \t]*\n){{{self._max_line_ends}}}"]
        if section.collapse_spaces:
            self.signs.append(r"  |\t")

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row with plain white space; none is dropped."""
        return [with_texts(row, self._clean_text) for row in rows]

    def _clean_text(self, text: str) -> str:
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if self._collapse and ("  " in text or "\t" in text):
            text = _BLANKS.sub(" ", text)
        if text[-1:].isspace():
            text = text.rstrip()
        if text.count("\n") > self._max_line_ends and self._gap.search(text):
            text = self._gap.sub(self._line_ends, text)
        return text
