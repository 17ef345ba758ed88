"""When two rows ask the same: their prompts are equal but for case, white space and Unicode composition."""

import unicodedata
from collections.abc import Sequence
from typing import Any

MESSAGE_START = "\0"
"""Begins each message of a folded conversation; it stands in no row."""


def folded(messages: Sequence[dict[str, Any]]) -> str:
    """Spell messages so that those which differ only in case, white space or Unicode composition are equal.

    The folded prompt is the folded conversation up to the white space before its last `MESSAGE_START`.
    """
    parts = []
    for message in messages:
        parts.append(MESSAGE_START + message["role"])
        if content := fold_text(message["content"]):
            parts.append(content)
    return " ".join(parts)


def fold_text(text: str) -> str:
    """Spell a text so that those which differ only in case, white space or Unicode composition are equal."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())
    plain = plain.replace("\n", " ")
    # Of white space only the space is printable; looking for other costs less than taking the text apart.
    if "  " in plain or plain[:1] == " " or plain[-1:] == " " or not plain.isprintable():
        return " ".join(plain.split())
    return plain
