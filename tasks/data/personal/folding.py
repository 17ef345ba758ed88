"""Characters that look like ASCII, or like nothing, and would hide a number or a name from a pattern."""

import re
import unicodedata

from tasks.data.cleaning.gate import ranges_of

_FIRST_UNUSED_PLANE = 0x20000
_MATHEMATICAL = range(0x1D400, 0x1D800)
_FULL_WIDTH = range(0xFF01, 0xFF5F)

INVISIBLE = (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
"""Soft hyphen, zero-width characters and direction marks; contacts copied from a phone carry the latter."""

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"


def _look_alikes() -> dict[int, str]:
    """Return code point → the one ASCII character it looks like."""
    table = {code: chr(code - 0xFEE0) for code in _FULL_WIDTH}
    for code in _MATHEMATICAL:
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain.isascii() and plain.isalnum():
            table[code] = plain
    decimals = re.findall(r"\d", "".join(map(chr, range(0x80, _FIRST_UNUSED_PLANE))))
    table |= {ord(digit): str(unicodedata.decimal(digit)) for digit in decimals}
    table |= dict.fromkeys(map(ord, _SPACES), " ")
    table |= dict.fromkeys(map(ord, _HYPHENS), "-")
    return table


_LOOK_ALIKES = _look_alikes()
_GONE = dict.fromkeys(map(ord, INVISIBLE))
_SPACED = re.compile(f"[{_SPACES}]")


def disguises() -> str:
    """Return an RE2 expression that matches where folding may uncover something, on the safe side.

    Full-width commas, colons and brackets are ordinary in Chinese text, so they do not count; nor do spaces and dashes
    unless they may stand inside a number. Signs of words know all spaces themselves: see `with_plain_spaces`.
    """
    beside_digits = set(_SPACES + _HYPHENS)
    anywhere = {
        chr(code)
        for code, plain in _LOOK_ALIKES.items()
        if plain.isalnum() or (plain in "@.+_" and code in _FULL_WIDTH)
    }
    return f"[{ranges_of(anywhere | set(INVISIBLE))}]|[0-9][ ().\\-/]{{0,3}}[{ranges_of(beside_digits)}]"


def with_plain_spaces(text: str) -> str:
    """Return the text with the space of ASCII, which is the one that rules want, for each that is wider or narrower."""
    return text if text.isascii() else _SPACED.sub(" ", text)


def folded(text: str) -> tuple[str, list[int] | None]:
    """Return the text with ASCII for what looks like it and without invisible characters.

    Returns:
        The folded text and, for each of its characters and for its end, the offset in `text`; None in place of the
        offsets if they are the same.
    """
    plain = text.translate(_LOOK_ALIKES)
    shown = plain.translate(_GONE)
    if len(shown) == len(plain):
        return plain, None
    offsets = [offset for offset, character in enumerate(plain) if ord(character) not in _GONE]
    offsets.append(len(plain))
    return shown, offsets
