"""JSON lines and digests: one canonical spelling, so the same content has the same digest on any machine."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Spell `value` as JSON with sorted keys and no optional white space."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest_of(value: Any) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the sha256 (64 hex digits) of the bytes of `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_directory(directory: Path) -> str:
    """Return the digest of the names and bytes of all files below a directory, but for Python's byte code."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return digest_of({path.relative_to(directory).as_posix(): digest_of_file(path) for path in files})


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write one canonical JSON object a line and return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(canonical_json(record) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file that this project wrote (malformed lines raise)."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one line and sync it. It is there whole or not at all, also when several processes append."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        append_line(descriptor, record, synced=True)
    finally:
        os.close(descriptor)


def append_line(descriptor: int, record: dict[str, Any], synced: bool) -> None:
    """Write a record as `append_whole` writes a line."""
    append_whole(descriptor, (canonical_json(record) + "\n").encode(), synced)


def append_whole(descriptor: int, line: bytes, synced: bool = True) -> None:
    """Write a whole line or none, on a line of its own even if a power cut tore the one before.

    Args:
        descriptor: open for reading and appending; the caller keeps others from writing.
        line: with its end.
        synced: wait until it is on the disk; without, a power cut may lose the last seconds, a killed process nothing.
    """
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        if synced:
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
