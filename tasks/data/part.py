"""One piece of a source read into files of rows: a job of the data stage, on JSON facts, in any process."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tasks.contracts.source_config import Source
from tasks.data.execution.jobs import Job, Result
from tasks.data.lines import LineWriter
from tasks.data.rows import Rejection, row_line

CHUNK_BYTES = 4 << 20
"""Size of the files of a row set: what the next stage gives to one process at a time."""
LISTED_PIECES = 100_000
"""If more pieces of a row set are rejected, they are counted and not listed: a line of two bytes has a record of 150,
and a flood of them would fill the disk."""

_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def read_part(job: Job) -> Result:
    """Read one piece of a source.

    Args:
        job: `shard`, `source`, `out` (the beginning of the names of the files that are written) and `most_malformed`
            (with more malformed pieces no rest of the source can be enough; null: there is no such number).

    Returns:
        `kept`, `files` (of rows), `rejected` (reason → pieces), `lines` (reason → line of the first), `first` (the
        first rejections, for an error), `columns` (what `PartColumns` found) and `is_whole` (false: there were too
        many, and the rest was not read).
    """
    from tasks.data.sources import Shard, read_shard
    from tasks.data.sources.columns import PartColumns
    from tasks.data.sources.malformed import NAMED_PIECES

    shard = Shard(**{**job["shard"], "problem": tuple(job["shard"]["problem"])})
    source = _SOURCE.validate_python(job["source"])
    columns = PartColumns(source)
    reasons: Counter[str] = Counter()
    lines: dict[str, int] = {}
    first: list[dict[str, Any]] = []
    malformed, is_whole = 0, True
    most = job["most_malformed"]
    with Path(f"{job['out']}.rejected").open("wb") as rejected, ChunkedLines(job["out"]) as out:
        for found in read_shard(shard, source, columns):
            if not isinstance(found, Rejection):
                out.write(row_line(found))
                continue
            malformed += 1
            reasons[found.reason] += 1
            lines.setdefault(found.reason, found.line)
            if malformed <= LISTED_PIECES:
                # Files in two folders may have one name, and paths must not enter the store.
                rejected.write(row_line({**asdict(found), "source_index": shard.source_index}))
            if len(first) < NAMED_PIECES:
                first.append(asdict(found))
            if most is not None and malformed > most:
                is_whole = False
                break
    counts = {"kept": out.lines, "rejected": dict(reasons), "lines": lines, "columns": columns.facts()}
    return {**counts, "files": out.names, "first": first, "is_whole": is_whole}


class ChunkedLines:
    """Lines in files of about `CHUNK_BYTES`, whose names begin with `stem`."""

    def __init__(self, stem: str) -> None:
        self.lines, self.names = 0, list[str]()
        self._stem = stem
        self._writer: LineWriter | None = None

    def write(self, line: bytes) -> None:
        """Append a line, given with its line feed."""
        if self._writer is None or self._writer.bytes >= CHUNK_BYTES:
            self.__exit__()
            path = Path(f"{self._stem}-{len(self.names):04}.jsonl")
            self.names.append(path.name)
            self._writer = LineWriter(path)
        self._writer.write(line)
        self.lines += 1

    def __enter__(self) -> "ChunkedLines":
        """Open nothing yet: a part without rows has no file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file that is written."""
        if self._writer is not None:
            self._writer.close()
