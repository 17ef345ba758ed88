"""A file that only grows, of lines that each carry the digest of the line before: what was changed in it is found.

Its head, a small file beside it, has the number and the digest of the last line: a chain alone does not show that its
end is missing. This finds accidents and quiet edits. Whoever writes all lines and the head anew is not found: there is
no secret in it.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.jsonl import append_whole, canonical_json

GENESIS = "0" * 64
"""What stands for the digest of the line before in a file's first line."""
_HEAD_LOST = "the head was lost"
"""What stands for it in a line that was written when nothing said which line is the last."""

log = logging.getLogger("llm_retrain.registry")


@dataclass(frozen=True)
class ChainProblem:
    """Something that is not as it was written.

    Attributes:
        line: its number, from 1.
        what: what is wrong with it, in words that go on from "line N".
        since: the first line that it puts in doubt.
        breaks_chain: False for a line that a crash cut short and that is there as the crash left it.
    """

    line: int
    what: str
    since: int
    breaks_chain: bool = True


@dataclass(frozen=True)
class _Head:
    """The last line: its number and its digest."""

    line: int
    digest: str


def append_chained(path: Path, head_path: Path, record: dict[str, Any]) -> None:
    """Append a record with the digest of the line before as `previous`, and let the head name it.

    What a crash tore stays as a line of its own, and the chain goes on over it. Where the head's line is not in the
    file any more, the record follows the head, and where the head is lost it follows nothing: going on does not cover
    up what is missing.

    Raises:
        OSError: it could not be written; the file is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        lines, head = _lines(os.pread(descriptor, size, 0)), _read_head(head_path)
        previous = _digest(lines[-1]) if lines else GENESIS
        records = [_record(line) for line in lines]
        if head is None and not _is_chained(records):
            _write_head(head_path, _Head(len(lines), previous))  # so that a chain never is without one
        elif any(_broken_end(lines, records, head)):
            log.warning("%s is not what it was when it was written last; llm-retrain history says where", path)
            previous = head.digest if head is not None else _HEAD_LOST
        line = canonical_json({**record, "previous": previous}).encode()
        append_whole(descriptor, line + b"\n")
        try:
            _write_head(head_path, _Head(len(lines) + 1, _digest(line)))
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def read_chained(path: Path, head_path: Path) -> tuple[list[dict[str, Any] | None], list[ChainProblem]]:
    """Return the records by line, None for a line that cannot be read, and all that is not as it was written.

    Lines at the beginning without `previous` are of before there was a chain: it starts where it starts.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            lines, head = _lines(file.read()), _read_head(head_path)
    except FileNotFoundError:
        lines, head = [], _read_head(head_path)
    records = [_record(line) for line in lines]
    return records, [*_broken_links(lines, records), *_broken_end(lines, records, head)]


def _broken_links(lines: list[bytes], records: list[dict[str, Any] | None]) -> Iterator[ChainProblem]:
    is_chained, before = False, GENESIS
    for number, (line, record) in enumerate(zip(lines, records, strict=True), start=1):
        if record is None:
            said = "cannot be read: it was cut short while it was written, or damaged"
            yield ChainProblem(number, said, number, breaks_chain=False)
        elif "previous" in record:
            is_chained = True
            if record["previous"] == _HEAD_LOST:
                said = "may not follow the line before it: the head was lost when it was written"
                yield ChainProblem(number, said, number - 1)
            elif record["previous"] != before:
                said = "does not follow from the line before it: that one was changed, or lines were removed, inserted "
                yield ChainProblem(number, f"{said}or put in another order here", number - 1)
        elif is_chained:
            said = "has no digest of the line before it: it was not written by llm-retrain"
            yield ChainProblem(number, said, number)
        before = _digest(line)


def _broken_end(lines: list[bytes], records: list[dict[str, Any] | None], head: _Head | None) -> Iterator[ChainProblem]:
    if head is None:
        if _is_chained(records):
            said = "may not be the last: the head, which says that, is lost"
            yield ChainProblem(len(lines), said, len(lines))
    elif missing := _missing_head(lines, head):
        yield ChainProblem(head.line, missing, min(head.line, len(lines)))


def _is_chained(records: list[dict[str, Any] | None]) -> bool:
    return any(record is not None and "previous" in record for record in records)


def _missing_head(lines: list[bytes], head: _Head) -> str:
    """Say how the head's line differs; the empty string if it does not. Lines after it are those of a crash."""
    if len(lines) < head.line:
        return f"is missing: there are {len(lines)} lines, and there were {head.line}"
    if head.line > 0 and _digest(lines[head.line - 1]) != head.digest:
        return "is not the line that was written there: it was changed, or lines before it were removed or inserted"
    return ""


def _lines(content: bytes) -> list[bytes]:
    """Split at line feeds; a last line without one was torn, or lacks nothing but it."""
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _read_head(path: Path) -> _Head | None:
    """Return the head; None if there is none, or it cannot be read."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        line, digest = written["line"], written["digest"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    is_one = isinstance(line, int) and line >= 0 and isinstance(digest, str)
    return _Head(line, digest) if is_one else None


def _write_head(path: Path, head: _Head) -> None:
    beside = path.with_name(f"{path.name}.new")  # whoever writes it has the lock of the file that it is the head of
    with beside.open("w", encoding="utf-8") as file:
        file.write(canonical_json({"line": head.line, "digest": head.digest}))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
