"""Normalised text, and the rows that are rejected for what they are: empty, short, long or said before."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tasks.contracts.config import DataSection
from tasks.contracts.jsonl import canonical_json
from tasks.contracts.twins import folded
from tasks.data.rows import Row, answer_of, build_row

EMPTY_ANSWER = "empty answer"
SHORT_ANSWER = "answer too short"
LONG_ROW = "row too long"
DUPLICATE = "exact duplicate"


@dataclass(frozen=True)
class Sifted:
    """Rows that were kept, and records of those that were not (`rejected_row`)."""

    rows: list[Row]
    rejected: list[dict[str, Any]]


def clean(rows: Iterable[Row], data: DataSection) -> Sifted:
    """Normalise the text of every row and reject what cannot be learned from.

    Of duplicates (the same conversation but for case and white space) the one with the smallest id stays, so the
    result does not depend on the order of `rows`. It is sorted by id.
    """
    kept: list[Row] = []
    rejected: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for row in sorted(map(_with_normal_text, rows), key=lambda row: (row["id"], canonical_json(row))):
        reason, detail = _flaw_of(row, data)
        conversation = folded(row["messages"])
        if not reason and conversation in seen:
            reason, detail = DUPLICATE, f"of row {seen[conversation]}"
        if reason:
            rejected.append(rejected_row(row, reason, detail))
        else:
            seen[conversation] = row["id"]
            kept.append(row)
    return Sifted(kept, rejected)


def rejected_row(row: Row, reason: str, detail: str) -> dict[str, Any]:
    """Return the record of a row that is not used: counted under `reason`, the row itself kept."""
    return {"reason": reason, "detail": detail, "source": row["source"], "row": row}


def _flaw_of(row: Row, data: DataSection) -> tuple[str, str]:
    answer_chars = len(answer_of(row).strip())
    row_chars = sum(len(message["content"]) for message in row["messages"])
    if answer_chars == 0:
        return EMPTY_ANSWER, "the answer has no text"
    if answer_chars < data.min_answer_chars:
        return SHORT_ANSWER, f"{answer_chars} characters, data.min_answer_chars is {data.min_answer_chars}"
    if row_chars > data.max_row_chars:
        return LONG_ROW, f"{row_chars} characters, data.max_row_chars is {data.max_row_chars}"
    return "", ""


def _with_normal_text(row: Row) -> Row:
    messages = [{"role": m["role"], "content": _normal_text(m["content"])} for m in row["messages"]]
    return build_row(messages, row["source"], row["slice"], row["meta"]) | {"weight": row["weight"]}


def _normal_text(text: str) -> str:
    """Compose characters (NFC), end lines with a line feed, and drop white space at the end."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").rstrip()
