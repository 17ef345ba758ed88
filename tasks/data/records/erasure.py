"""Records that must not be used again: the list of what was erased, and how a row is recognised in it.

The list holds digests alone, so it does not keep what it forbids.
"""

import time
from collections.abc import Iterable
from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import append_jsonl, digest_of, read_jsonl
from tasks.contracts.twins import folded
from tasks.data.rows import Row

ERASED = "erased"


def erased_marks(home: Home) -> frozenset[str]:
    """Return the marks of all erased records: ids of rows and pieces, and digests of folded conversations."""
    if not home.erased.exists():
        return frozenset()
    return frozenset(mark for record in read_jsonl(home.erased) for mark in record["marks"])


def marks_of(row: Row) -> list[str]:
    """Return what a row is recognised by: its id, and its conversation but for case and white space."""
    return [row["id"], digest_of(folded(row["messages"]))]


def erase(home: Home, marks: Iterable[str], reason: str) -> dict[str, Any]:
    """Put the marks of a record on the list and return what stands there now; future versions leave it out.

    Args:
        home: where the list is.
        marks: ids and digests of folded conversations (`tasks.data.records.traces` finds all that a record has).
        reason: why; stands on the list.

    Raises:
        DataError: the record stands there already.
    """
    marks = sorted(marks)
    if set(marks) <= erased_marks(home):
        raise DataError("the record was erased before; nothing was changed")
    record = {"marks": marks, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    append_jsonl(home.erased, record)
    return record
