"""Records that must not be used again: the list of what was erased, and how a row is recognised in it.

The list holds digests alone, so it does not keep what it forbids.
"""

import time
from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import append_jsonl, digest_of, read_jsonl
from tasks.contracts.twins import folded
from tasks.data.rows import Row

ERASED = "erased"


def erased_marks(home: Home) -> frozenset[str]:
    """Return the marks of all erased records: ids, and digests of folded conversations."""
    if not home.erased.exists():
        return frozenset()
    return frozenset(mark for record in read_jsonl(home.erased) for mark in record["marks"])


def marks_of(row: Row) -> list[str]:
    """Return what a row is recognised by: its id, and its conversation but for case and white space."""
    return [row["id"], digest_of(folded(row["messages"]))]


def erase(home: Home, row: Row, reason: str) -> dict[str, Any]:
    """Put a row on the list and return its record; future versions leave it out.

    Raises:
        DataError: it stands there already.
    """
    marks = marks_of(row)
    if set(marks) <= erased_marks(home):
        raise DataError(f"row {row['id']} was erased before; nothing was changed")
    record = {"marks": marks, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    append_jsonl(home.erased, record)
    return record
