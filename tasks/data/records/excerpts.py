"""An excerpt as it is searched for personal data: without escapes that hide it, and without half a word at its end."""

import re

from tasks.data.sources.shard import EXCERPT_CHARS

_MOST_CUT_CHARS = 200
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([\"\\/bfnrt]))"
)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Chinese, Japanese and full-width punctuation, but for full-width signs that stand within addresses and numbers.
_LAST_WORD = re.compile(r"[^\s\u3001-\u3003\u3008-\u3011\u2018-\u201d\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]*\Z")
_LAST_NUMBERS = re.compile(r"[\d\s+()./:\uff08\uff09\uff0b\uff0d-]*\Z")


def unescaped(text: str) -> str:
    r"""Return a text with what JSON escapes in it (`\u0040`, `\n`, `\"`) spelled out, also where JSON stands in JSON.

    Half surrogates become U+FFFD; an escape that is cut off stays.
    """
    while (plain := _ESCAPE.sub(_character, text)) != text:  # each round is shorter, so this ends
        text = plain
    return text


def without_half_word(text: str) -> str:
    """Return a text that was cut somewhere without its last word and the numbers before it.

    No rule recognises half an address or number. Nothing but the last 200 characters goes, so that a text without white
    space and Chinese punctuation is not lost.
    """
    start = max(0, len(text) - _MOST_CUT_CHARS)
    last = text[start:]
    for cut in (_LAST_WORD, _LAST_NUMBERS):  # a number may have spaces in it
        last = cut.sub("", last, count=1)
    return text[:start] + last


def is_cut(excerpt: str) -> bool:
    """Tell whether an excerpt may be only the beginning of a piece."""
    return len(excerpt) >= EXCERPT_CHARS


def _character(escape: re.Match[str]) -> str:
    high, low, single, letter = escape.groups()
    if letter:
        return _LETTERS.get(letter, letter)
    if single:
        character = chr(int(single, 16))
        return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= character <= "\udfff" else character
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
