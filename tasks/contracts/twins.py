"""When two rows ask the same: their prompts are equal but for case, white space and Unicode composition."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from tasks.contracts.jsonl import canonical_json


def folded(messages: Sequence[dict[str, Any]]) -> str:
    """Spell messages so that those which differ only in case, white space or Unicode composition are equal."""
    return canonical_json([[message["role"], _fold(message["content"])] for message in messages])


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())
