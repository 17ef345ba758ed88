"""Text of models and rows as a reviewer may see it."""

import unicodedata

_LONGEST_CHARS = 2_000
_JOINERS = "\u200c\u200d"  # format characters that Persian and emoji need


def visible(text: str, longest_chars: int = _LONGEST_CHARS) -> str:
    """Return text whose control and direction characters, which could hide or reorder what a reviewer reads, show as �.

    Line breaks and tabs stay.
    """
    shown = text if len(text) <= longest_chars else text[:longest_chars] + "…"
    return "".join("�" if _hides(character) else character for character in shown)


def _hides(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t" + _JOINERS
