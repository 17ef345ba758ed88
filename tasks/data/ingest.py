"""Sources read into canonical rows, once for the same content: `rows-*.jsonl`, and `rejected.jsonl`."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import TypeAdapter

from tasks.contracts.artifacts import RowSet
from tasks.contracts.config import DataSection, ServingSection
from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.source_config import Source
from tasks.contracts.store import Store, code_digest
from tasks.data.executors import Job, Result, run_jobs
from tasks.data.lines import LineWriter
from tasks.data.rows import Rejection, row_line

CODE = ("tasks/data", "tasks/contracts")
CHUNK_BYTES = 8 << 20
"""Size of the files of a row set: what the next stage gives to one process at a time."""

Progress = Callable[[int, int], None]

if TYPE_CHECKING:
    from tasks.data.sources import Shard

_NAMING = ("path", "source", "url", "query")
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


@dataclass(frozen=True)
class Place:
    """Where the data stage works.

    Attributes:
        home: the state directory: fetched sources, erased records, logs.
        store: where results are kept.
        serving: names the logs that a served_log source reads by default.
    """

    home: Home
    store: Store
    serving: ServingSection = field(default_factory=ServingSection)

    @property
    def log(self) -> Path:
        """What worker processes write beside their results."""
        return self.home.logs / "data.log"


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


def ingest(data: DataSection, place: Place, sources: tuple[Source, ...], progress: Progress = no_progress) -> RowSet:
    """Read `sources` (those of `data.sources` or of `data.evaluation_sources`) into canonical rows.

    A rejected piece is recorded with its source's name, its place in `sources` (from 0) and its line.

    The store's key is made of the sources' contents and names without directories, in any order, so unchanged sources
    are not read again, here or on another machine.

    Args:
        data: shares and execution.
        place: where to work.
        sources: what to read.
        progress: called with the number of finished parts and of all parts.

    Raises:
        DataError: there is no source, one cannot be read, or one has too many malformed records.
        EnvironmentProblem: a package or an environment variable that a source needs is missing.
    """
    from tasks.data.sources import open_source

    if not sources:
        raise DataError(
            "data.sources is empty; expected at least one source, for example {kind: files, path: rows.jsonl}"
        )
    keys = [_config_key(source, data) for source in sources]
    logs = place.home.request_log(place.serving.model_name), place.home.feedback_log(place.serving.model_name)
    opened = [
        open_source(source, number, key, place.home.sources, *logs)
        for number, (source, key) in enumerate(zip(sources, keys, strict=True))
    ]
    inputs = {
        "sources": sorted(found.digest for found in opened),
        "max_malformed_share": data.max_malformed_share,
        "code": code_digest(*CODE),
    }
    shards = [shard for found in opened for shard in found.shards]

    def write(directory: Path) -> dict[str, Any]:
        jobs = [
            {
                "shard": asdict(shard),
                "source": sources[shard.source_index].model_dump(mode="json"),
                "out": str(directory / f"part-{number:05}"),
            }
            for number, shard in enumerate(shards)
        ]
        sizes = [_bytes_of(shard, shards) for shard in shards]
        results = run_jobs(
            "tasks.data.ingest:read_part",
            jobs,
            sizes,
            data.execution,
            place.log,
            lambda done: progress(done, len(jobs)),
        )
        for number, (source, key) in enumerate(zip(sources, keys, strict=True)):
            parts = [result for shard, result in zip(shards, results, strict=True) if shard.source_index == number]
            _check_share(source, key, parts, data.max_malformed_share)
        return _join_parts(directory, jobs, results)

    entry = place.store.produce("rows", inputs, write)
    return RowSet(path=entry.path, digest=entry.digest, **entry.facts)


def read_part(job: Job) -> Result:
    """Read one piece of a source: a job of the data stage.

    Args:
        job: `shard`, `source` and `out`, the beginning of the names of the files that are written.

    Returns:
        `kept`, `files` (of rows), `rejected` (reason → pieces) and `first` (the first rejections, for an error).
    """
    from tasks.data.sources import Shard, read_shard
    from tasks.data.sources.malformed import NAMED_PIECES

    shard = Shard(**{**job["shard"], "problem": tuple(job["shard"]["problem"])})
    out = _ChunkedLines(job["out"])
    reasons: Counter[str] = Counter()
    first: list[dict[str, Any]] = []
    with Path(f"{job['out']}.rejected").open("wb") as rejected, out:
        for found in read_shard(shard, _SOURCE.validate_python(job["source"])):
            if not isinstance(found, Rejection):
                out.write(row_line(found))
                continue
            # Files in two folders may have one name, and paths must not enter the store.
            record = {**asdict(found), "source_index": shard.source_index}
            rejected.write(row_line(record))
            reasons[found.reason] += 1
            if len(first) < NAMED_PIECES:
                first.append(asdict(found))
    return {"kept": out.lines, "files": out.names, "rejected": dict(reasons), "first": first}


class _ChunkedLines:
    """Lines in files of about `CHUNK_BYTES`."""

    def __init__(self, stem: str) -> None:
        self.lines, self.names = 0, list[str]()
        self._stem = stem
        self._writer: LineWriter | None = None

    def write(self, line: bytes) -> None:
        if self._writer is None or self._writer.bytes >= CHUNK_BYTES:
            self.__exit__()
            path = Path(f"{self._stem}-{len(self.names):04}.jsonl")
            self.names.append(path.name)
            self._writer = LineWriter(path)
        self._writer.write(line)
        self.lines += 1

    def __enter__(self) -> None:
        """Open nothing yet: a part without rows has no file."""

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _join_parts(directory: Path, jobs: list[Job], results: list[Result]) -> dict[str, Any]:
    """Join files of rows into a few of about `CHUNK_BYTES`, and the rejections into one; return the row set's facts."""
    chunks = [directory / "rows-00000.jsonl"]
    chunks[0].touch()  # a source without rows is a row set without rows
    with (directory / "rejected.jsonl").open("wb") as rejections:
        for job, result in zip(jobs, results, strict=True):
            for name in result["files"]:
                filled = chunks[-1].stat().st_size
                if filled and filled + (directory / name).stat().st_size > CHUNK_BYTES:
                    chunks.append(directory / f"rows-{len(chunks):05}.jsonl")
                _move_to_end(directory / name, chunks[-1])
            _append_to(rejections, Path(f"{job['out']}.rejected"))
    rejected = sum((Counter(result["rejected"]) for result in results), Counter[str]())
    kept = sum(result["kept"] for result in results)
    return {"rows_read": kept + rejected.total(), "rows_kept": kept, "rejected": dict(rejected)}


def _move_to_end(part: Path, whole: Path) -> None:
    if not whole.exists() or not whole.stat().st_size:
        part.replace(whole)
        return
    with whole.open("ab") as file:
        _append_to(file, part)


def _append_to(whole: IO[bytes], part: Path) -> None:
    with part.open("rb") as file:
        shutil.copyfileobj(file, whole)
    part.unlink()


def _check_share(source: Source, config_key: str, parts: list[Result], max_malformed_share: float) -> None:
    from tasks.data.sources.malformed import check_malformed_share

    malformed = sum(sum(part["rejected"].values()) for part in parts)
    first = [Rejection(**record) for part in parts for record in part["first"]]
    pieces = malformed + sum(part["kept"] for part in parts)
    named = next(
        (str(getattr(source, key)) for key in ("path", "source", "url", "query") if hasattr(source, key)), source.kind
    )
    check_malformed_share(named, config_key, pieces, malformed, first, max_malformed_share)


def _bytes_of(shard: "Shard", shards: "list[Shard]") -> int:
    """Return about how many bytes a piece has; pieces of a Parquet file are cut by row groups and not by bytes."""
    if not shard.path:
        return 0
    whole = Path(shard.path).stat().st_size
    if shard.file_format == "parquet":
        return whole // sum(other.path == shard.path for other in shards)
    return (whole if shard.stop is None else shard.stop) - shard.start


def row_files(rows: RowSet) -> list[Path]:
    """Return the files of rows of a row set."""
    return sorted(rows.path.glob("rows-*.jsonl"))


def rejected_pieces(rows: RowSet) -> Any:
    """Yield the records of pieces that never became rows."""
    return read_jsonl(rows.path / "rejected.jsonl")


def _config_key(source: Source, data: DataSection) -> str:
    return "data.sources" if source in data.sources else "data.evaluation_sources"
