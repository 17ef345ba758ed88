"""Sources read into canonical rows, once for the same content: `rows-*.jsonl`, and `rejected.jsonl`."""

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tasks.contracts.artifacts import RowSet
from tasks.contracts.config import DataSection, ServingSection
from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.source_config import Source
from tasks.contracts.store import Store, code_digest
from tasks.data import part
from tasks.data.execution.executors import run_jobs
from tasks.data.execution.jobs import CODE, Job, Result
from tasks.data.rows import row_line

Progress = Callable[[int, int], None]

if TYPE_CHECKING:
    from tasks.data.sources import OpenedSource, Shard
    from tasks.data.sources.malformed import MalformedShare

_NAMING = ("path", "source", "url", "query")


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
        DataError: there is no source, one cannot be read, has too many malformed records, or has no record with a field
            that its section names.
        EnvironmentProblem: a package or an environment variable that a source needs is missing.
    """
    opened = _open(data, place, sources)
    inputs = {
        "sources": sorted(found.digest for found in opened),
        "max_malformed_share": data.max_malformed_share,
        "code": code_digest(*CODE),
    }
    shards = [shard for found in opened for shard in found.shards]

    def write(directory: Path) -> dict[str, Any]:
        return _read_all(shards, sources, data, (directory, place.log), progress)

    entry = place.store.produce("rows", inputs, write)
    return RowSet(path=entry.path, digest=entry.digest, **entry.facts)


def _open(data: DataSection, place: Place, sources: tuple[Source, ...]) -> "list[OpenedSource]":
    from tasks.data.sources import open_source

    if not sources:
        raise DataError(
            "data.sources is empty; expected at least one source, for example {kind: files, path: rows.jsonl}"
        )
    logs = place.home.request_log(place.serving.model_name), place.home.feedback_log(place.serving.model_name)
    return [
        open_source(source, number, _config_key(source, data), place.home.sources, *logs)
        for number, source in enumerate(sources)
    ]


def _read_all(
    shards: "list[Shard]",
    sources: tuple[Source, ...],
    data: DataSection,
    places: tuple[Path, Path],
    progress: Progress,
) -> dict[str, Any]:
    """Read the pieces of all sources into files of a directory (and beside a log); return the row set's facts."""
    from tasks.data.sources.columns import SourceColumns

    directory, log = places
    sizes = _sizes_of(shards)
    shares = _malformed_shares(shards, sizes, sources, data)
    jobs = []
    for number, shard in enumerate(shards):
        most = shares[shard.source_index].most_malformed
        jobs.append(
            {
                "shard": asdict(shard),
                "source": sources[shard.source_index].model_dump(mode="json"),
                "out": str(directory / f"part-{number:05}"),
                "most_malformed": most if math.isfinite(most) else None,
            }
        )

    columns = [SourceColumns(source, _config_key(source, data)) for source in sources]

    def done(finished: int, number: int, result: Result) -> None:
        index = shards[number].source_index
        columns[index].add(number, result)
        try:
            shares[index].add(number, result)
        except DataError as error:
            raise columns[index].explained(error) from error
        progress(finished, len(jobs))

    results = run_jobs("tasks.data.part:read_part", jobs, sizes, data.execution, log, done)
    for named, share in zip(columns, shares, strict=True):
        named.check()  # first: without a field that is named wrongly, every record may be malformed
        share.check()
    return _join_parts(directory, jobs, results)


def _malformed_shares(
    shards: "list[Shard]", sizes: list[int], sources: tuple[Source, ...], data: DataSection
) -> "list[MalformedShare]":
    from tasks.data.sources.malformed import MalformedShare, most_rows

    shares = []
    for index, source in enumerate(sources):
        most = {
            number: most_rows(shard, source, sizes[number])
            for number, shard in enumerate(shards)
            if shard.source_index == index
        }
        named = next((str(getattr(source, key)) for key in _NAMING if hasattr(source, key)), source.kind)
        shares.append(MalformedShare(named, _config_key(source, data), data.max_malformed_share, most))
    return shares


def _join_parts(directory: Path, jobs: list[Job], results: list[Result]) -> dict[str, Any]:
    """Join files of rows into a few of about `CHUNK_BYTES`, and the rejections into one; return the row set's facts."""
    chunks = [directory / "rows-00000.jsonl"]
    chunks[0].touch()  # a source without rows is a row set without rows
    for result in results:
        for name in result["files"]:
            filled = chunks[-1].stat().st_size
            if filled and filled + (directory / name).stat().st_size > part.CHUNK_BYTES:
                chunks.append(directory / f"rows-{len(chunks):05}.jsonl")
            _move_to_end(directory / name, chunks[-1])
    rejected = sum((Counter(result["rejected"]) for result in results), Counter[str]())
    with (directory / "rejected.jsonl").open("wb") as rejections:
        if rejected.total() > part.LISTED_PIECES:
            rejections.writelines(_counted(jobs, results))
        for job in jobs:
            listed = Path(f"{job['out']}.rejected")
            if rejected.total() <= part.LISTED_PIECES:
                _append_to(rejections, listed)
            listed.unlink()
    kept = sum(result["kept"] for result in results)
    return {"rows_read": kept + rejected.total(), "rows_kept": kept, "rejected": dict(rejected)}


def _counted(jobs: list[Job], results: list[Result]) -> Iterator[bytes]:
    """Yield a record for each file and reason instead of one for each piece, whatever order the pieces have."""
    counts: Counter[tuple[int, str, str]] = Counter()
    lines: dict[tuple[int, str, str], int] = {}
    for job, result in zip(jobs, results, strict=True):
        for reason, pieces in result["rejected"].items():
            kind = job["shard"]["source_index"], job["shard"]["name"], reason
            counts[kind] += pieces
            lines.setdefault(kind, result["lines"][reason])
    for (source_index, name, reason), pieces in counts.items():
        detail = f"{pieces:,} pieces, too many to list"
        line = lines[source_index, name, reason]
        record = {"reason": reason, "detail": detail, "source": name, "source_index": source_index, "line": line}
        yield row_line({**record, "excerpt": ""})


def _move_to_end(piece: Path, whole: Path) -> None:
    if not whole.exists() or not whole.stat().st_size:
        piece.replace(whole)
        return
    with whole.open("ab") as file:
        _append_to(file, piece)
    piece.unlink()


def _append_to(whole: IO[bytes], piece: Path) -> None:
    with piece.open("rb") as file:
        shutil.copyfileobj(file, whole)


def _sizes_of(shards: "list[Shard]") -> list[int]:
    """Return about how many bytes each piece has; pieces of a Parquet file are cut by row groups and not by bytes."""
    pieces = Counter(shard.path for shard in shards)

    def size(shard: "Shard") -> int:
        if not shard.path:
            return 0
        whole = Path(shard.path).stat().st_size
        if shard.file_format == "parquet":
            return whole // pieces[shard.path]
        return (whole if shard.stop is None else shard.stop) - shard.start

    return [size(shard) for shard in shards]


def row_files(rows: RowSet) -> list[Path]:
    """Return the files of rows of a row set."""
    return sorted(rows.path.glob("rows-*.jsonl"))


def rejected_pieces(rows: RowSet) -> Any:
    """Yield the records of pieces that never became rows."""
    return read_jsonl(rows.path / "rejected.jsonl")


def _config_key(source: Source, data: DataSection) -> str:
    return "data.sources" if source in data.sources else "data.evaluation_sources"
