"""The canonical row: one conversation with its origin, whatever the source looked like.

    {"id", "messages": [{"role", "content"}, ...], "source", "slice", "weight", "meta"}

The last message is the assistant's (the answer); the messages before it are the prompt. A preference pair has the
answer that was not chosen as "rejected" beside them. The id is the digest of the messages (and of the rejected answer),
so the same conversation has the same id wherever it comes from. An evaluation row may have the set it is of as "set".
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

Row = dict[str, Any]
Message = dict[str, str]

NOT_A_ROW = "not a usable conversation"
SHORT_ANSWER = "answer too short"
LONG_ROW = "row too long"
PERSONAL_DATA = "personal data"

_ID_CHARS, _SHORTEST_BEGINNING = 64, 8
_ROW_START = b'{"id":"'
_REJECTED_ROW_START = b'"row":{"id":"'


class UnusableRow(Exception):
    """A record that is no canonical row; its text says why. Never leaves the data stage."""


@dataclass(frozen=True)
class Rejection:
    """A piece of a source that did not become a row.

    Attributes:
        reason: the name it is counted under.
        detail: what exactly is wrong.
        source: the source's name.
        line: line number in the file, from 1.
        excerpt: the beginning of the line.
    """

    reason: str
    detail: str
    source: str
    line: int
    excerpt: str


def build_row(
    messages: list[Message],
    source: str,
    slice_name: str,
    meta: dict[str, Any] | None = None,
    rejected: str | None = None,
) -> Row:
    """Return the canonical row of checked messages; `rejected` makes it a preference pair."""
    row = {
        "id": id_of(messages, rejected),
        "messages": messages,
        "source": source,
        "slice": slice_name,
        "weight": 1.0,
        "meta": meta or {},
    }
    if rejected is not None:
        row["rejected"] = rejected
    return row


def id_of(messages: list[Message], rejected: str | None = None) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of a conversation."""
    content: Any = messages if rejected is None else [messages, rejected]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def row_line(row: Row) -> bytes:
    """Spell a row as one line of canonical JSON, with its line feed."""
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def id_in_line(line: bytes) -> str:
    """Return the id of the row in a line that `row_line` or `rejected_line` spelled, without parsing it; or nothing."""
    if line.startswith(_ROW_START):
        start = len(_ROW_START)
    else:
        start = line.find(_REJECTED_ROW_START)  # within a text its quotation marks would be escaped
        if start < 0:
            return ""
        start += len(_REJECTED_ROW_START)
    return line[start : start + _ID_CHARS].decode()


def is_made(row: Row) -> bool:
    """Say whether a training row was made of another one, which its meta then names."""
    return "parent" in row["meta"] and "method" in row["meta"]


def is_beginning_of_id(text: str) -> bool:
    """Say whether a text may be the beginning of an id: at least 8 hex digits, and no more than it has."""
    return _SHORTEST_BEGINNING <= len(text) <= _ID_CHARS and all(letter in "0123456789abcdef" for letter in text)


def rejected_line(row: Row, reason: str, detail: str) -> bytes:
    """Spell the record of a row that is not used: counted under `reason`, the row itself kept."""
    return row_line({"reason": reason, "detail": detail, "source": row["source"], "row": row})


def rejected_line_of(line: bytes, reason: str, detail: str) -> bytes:
    """Spell the same record out of a row's line, which is taken over as it is."""
    # Keys are sorted, and no string of JSON holds a quotation mark that no backslash precedes.
    source = line[line.rindex(b',"source":') + 10 : line.rindex(b',"weight":')]
    parts = orjson.dumps(detail), b',"reason":', orjson.dumps(reason), b',"row":', line[:-1], b',"source":', source
    return b"".join((b'{"detail":', *parts, b"}\n"))


def line_without_text(row: Row, reason: str, detail: str) -> bytes:
    """Spell the record of a row whose text must not be kept."""
    return row_line({"reason": reason, "detail": detail, "source": row["source"], "row": None})


def prompt_of(row: Row) -> list[Message]:
    """Return the messages before the answer."""
    prompt: list[Message] = row["messages"][:-1]
    return prompt


def asked_text(row: Row) -> str:
    """Return what is asked, as one text: the messages before the answer but for the system's, which many rows share."""
    return "\n".join(message["content"] for message in prompt_of(row) if message["role"] != "system")


def answer_of(row: Row) -> str:
    """Return the content of the last message."""
    answer: str = row["messages"][-1]["content"]
    return answer


def answered_text(row: Row) -> str:
    """Return what is answered, as one text: the answer, and after it the rejected one of a preference pair."""
    return f"{answer_of(row)}\n{row['rejected']}" if "rejected" in row else answer_of(row)


def flaw_of_length(contents: list[str], min_answer_chars: int, max_row_chars: int) -> tuple[str, str] | None:
    """Return reason and detail if a row breaks the limits of data, else None.

    Args:
        contents: the texts of the row, the answer last.
        min_answer_chars: data.min_answer_chars.
        max_row_chars: data.max_row_chars.
    """
    least = min_answer_chars
    if len(contents[-1]) < least or (least > 1 and len(contents[-1].strip()) < least):
        return SHORT_ANSWER, f"{len(contents[-1].strip())} characters, data.min_answer_chars is {least}"
    row_chars = sum(map(len, contents))
    if row_chars > max_row_chars:
        return LONG_ROW, f"{row_chars} characters, data.max_row_chars is {max_row_chars}"
    return None
