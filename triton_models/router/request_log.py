"""The request log: one JSON line a request, appended whole even when several processes write."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line in one write, under a lock.

    The file is opened each time, so that it can be rotated by renaming it.

    Raises:
        OSError: the log cannot be written, or not completely.
    """
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written != len(line):
            # Half a line would also spoil the next one.
            os.ftruncate(descriptor, end)
            raise OSError(f"only {written} of {len(line)} bytes could be written")
    finally:
        os.close(descriptor)
