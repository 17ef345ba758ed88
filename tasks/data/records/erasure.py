"""Records that must not be used again: the list of what was erased, and how a row is recognised in it.

The list holds digests alone, so it does not keep what it forbids.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import append_jsonl, digest_of
from tasks.contracts.store import spelled_time
from tasks.contracts.twins import folded
from tasks.data.rows import Row, is_beginning_of_id

ERASED = "erased"


def erased_marks(home: Home) -> frozenset[str]:
    """Return the marks of all erased records: ids of rows and pieces, and digests of folded conversations.

    Raises:
        DataError: a line of the list is damaged.
    """
    return frozenset(mark for record in listed(home) for mark in record["marks"])


def listed(home: Home) -> Iterator[dict[str, Any]]:
    """Yield the records of the list: `marks`, `reason` and `time`.

    Raises:
        DataError: a line is no such record. It is never passed over: what it names would come back.
    """
    if not home.erased.exists():
        return
    with home.erased.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _checked(json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"line {number} of {home.erased}, the list of erased records, is damaged ({error}); expected one "
                    "JSON object with marks, reason and time. Restore it from a copy, or delete the line and erase "
                    "again what it named: otherwise that would come back"
                ) from error


def _checked(record: Any) -> dict[str, Any]:
    marks = record.get("marks") if isinstance(record, dict) else None
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise TypeError("it has no marks")
    return {"reason": "", "time": "", **record}


def marks_of(row: Row) -> list[str]:
    """Return what a row is recognised by: its id, and its conversation but for case and white space."""
    return [row["id"], digest_of(folded(row["messages"]))]


def erased_before(home: Home, ids: Iterable[str], wanted: str = "") -> dict[str, dict[str, str]]:
    """Return what the list says of records: mark → its `reason` and its `time`, the first time it was put there.

    Args:
        home: where the list is.
        ids: of rows and pieces, in any spelling.
        wanted: the beginning of an id or text, as a person asked for it; only an id is looked for.
    """
    if not home.erased.exists():
        return {}
    known, beginning = frozenset(ids), wanted if is_beginning_of_id(wanted) else None
    found: dict[str, dict[str, str]] = {}
    for record in listed(home):
        for mark in record["marks"]:
            if mark in known or (beginning and mark.startswith(beginning)):
                found.setdefault(mark, {"reason": record["reason"], "time": record["time"]})
    return found


def erase(home: Home, marks: Iterable[str], reason: str) -> dict[str, Any]:
    """Put the marks of a record on the list; future versions leave it out.

    Args:
        home: where the list is.
        marks: ids and digests of folded conversations (`tasks.data.records.traces` finds all that a record has).
        reason: why; stands on the list.

    Returns:
        What the list now says (`marks`, `reason`, `time`), and whether it said so `before`: then nothing was changed.

    Raises:
        DataError: a line of the list is damaged.
    """
    marks = sorted(marks)
    known = erased_before(home, marks)
    if known and known.keys() >= set(marks):
        return {"marks": marks, **next(iter(known.values())), "before": True}
    record = {"marks": marks, "reason": reason, "time": spelled_time(time.time())}
    append_jsonl(home.erased, record)
    return {**record, "before": False}
