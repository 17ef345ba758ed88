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
    return fold_text(" ".join(f"{MESSAGE_START}{message['role']} {message['content']}" for message in messages))


def fold_text(text: str) -> str:
    """Spell a text so that those which differ only in case, white space or Unicode composition are equal."""
    folded_case = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())
    return " ".join(folded_case.split())
