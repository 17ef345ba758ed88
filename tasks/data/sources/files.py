"""A source of files: which they are, what each is made of, and how it is cut into pieces."""

import glob
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import FilesSource
from tasks.data.sources import csv_records, json_lines, json_records, parquet_records
from tasks.data.sources.byte_stream import BLOCK_BYTES, compression_of, open_bytes
from tasks.data.sources.remote_files import fetch, is_remote
from tasks.data.sources.shard import SHARD_BYTES, BrokenFile, Malformed, Shard
from tasks.data.sources.text_encoding import EncodingSample, is_utf8, needs_transcoding

log = logging.getLogger("llm_retrain.data")

ARCHIVE = "archive"
UNKNOWN_FORMAT = "unknown format"

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED_SUFFIXES = (".gz", ".zst", ".zstd")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_REFUSED_SUFFIXES = (*_ARCHIVE_SUFFIXES, ".bz2", ".xz", ".lz4", ".xlsx", ".xls", ".pkl", ".pickle", ".pt")
_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 2**16
_MAX_SAMPLED_BYTES = 2**24
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def open_files(source: FilesSource, index: int, config_key: str, cache: Path) -> tuple[list[Shard], list[Any]]:
    """Find and read through the files of a source.

    Args:
        source: names the files.
        index: the source's place in its config key.
        config_key: where it stands in the configuration.
        cache: folder for copies of remote files.

    Returns:
        The pieces, in an order that does not depend on folders, and name and sha256 of each file in that order.

    Raises:
        DataError: no file matches, one cannot be read, or the only one named is of an unknown format.
    """
    found, by_pattern = _find(source, config_key, cache)
    surveyed = []
    for name, path in found:
        with readable(source.path, config_key):
            # A name need not be UTF-8 on Linux, and rows must be.
            surveyed.append((name.encode("utf-8", "replace").decode("utf-8"), path, survey(path)))
    surveyed.sort(key=lambda each: (each[0], each[2].sha256))
    shards: list[Shard] = []
    for name, path, content in surveyed:
        with readable(source.path, config_key):
            shards += _pieces(Shard(index, name, str(path), config_key=config_key), content, source, by_pattern)
    return shards, [[name, content.sha256] for name, _, content in surveyed]


def read_file(shard: Shard) -> Iterator[tuple[int, Any | Malformed]]:
    """Yield line (or record) number and record of a piece, or why it is none.

    Raises:
        DataError: the file is gone, cannot be read, or is not the one that was opened.
    """
    if shard.file_format == "unreadable":
        yield shard.first_line, Malformed(*shard.problem)
        return
    number = shard.first_line
    path = Path(shard.path)
    with readable(shard.name, shard.config_key):
        _check_unchanged(path, shard)
        try:
            for number, record in _records(shard, path):
                yield number, record
        except BrokenFile as problem:
            log.warning("%s is set aside from line %d on: %s", shard.name, number, problem)
            yield number, Malformed(problem.reason, problem.detail)
        _check_unchanged(path, shard)


@dataclass
class Survey:
    """What one reading of a file finds out.

    Attributes:
        sha256: of its bytes.
        stamp: size and time of change.
        cuts: positions of lines after each 64 MiB, and their numbers from 1.
        head: the first bytes.
        sample: for the encoding.
    """

    sha256: str = ""
    stamp: str = ""
    cuts: list[tuple[int, int]] = field(default_factory=list)
    head: bytes = b""
    sample: EncodingSample = field(default_factory=EncodingSample)


def survey(path: Path) -> Survey:
    """Read a file once: its digest, where its lines may be cut, and what its encoding is judged by."""
    found, digest = Survey(), hashlib.sha256()
    position, lines, next_cut = 0, 1, SHARD_BYTES
    with path.open("rb", buffering=0) as file:
        found.stamp = _stamp(os.fstat(file.fileno()))
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            found.sample.add(block)
            if len(found.head) < _HEAD_BYTES:
                found.head += block[: _HEAD_BYTES - len(found.head)]
            end = block.find(b"\n", max(0, next_cut - position - 1)) if position + len(block) >= next_cut else -1
            if end >= 0:
                found.cuts.append((position + end + 1, lines + block.count(b"\n", 0, end + 1)))
                next_cut = position + end + 1 + SHARD_BYTES
            lines += block.count(b"\n")
            position += len(block)
    found.sha256 = digest.hexdigest()
    return found


@contextmanager
def readable(named: str, config_key: str) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{config_key} names {named!r}, which does not exist; expected a file") from error
    except OSError as error:
        raise DataError(
            f"{config_key} names {named!r}, which cannot be read ({os.strerror(error.errno or 0)}); "
            "expected a readable file"
        ) from error


def cut_lines(base: Shard, content: Survey) -> list[Shard]:
    """Cut a plain JSONL file into pieces of about 64 MiB."""
    size = int(content.stamp.partition(":")[0])
    starts = [(0, 1), *((at, line) for at, line in content.cuts if at < size)]
    stops = [at for at, _ in starts[1:]] + [None]
    return [_with(base, start=at, stop=stop, first_line=line) for (at, line), stop in zip(starts, stops, strict=True)]


def _find(source: FilesSource, config_key: str, cache: Path) -> tuple[list[tuple[str, Path]], bool]:
    """Return name and place of each file, and whether a pattern matched them."""
    named = source.path
    if is_remote(named):
        found = fetch(named, config_key, cache / "remote")
        by_pattern = any(character in named for character in "*?[")
    else:
        local = Path(named.removeprefix("file://").removeprefix("local://"))
        with readable(named, config_key):
            if "\0" in named:
                raise DataError(f"{config_key} names {named!r}, which holds a NUL character; expected a file")
            if local.is_dir():
                raise DataError(
                    f"{config_key} names {named!r}, which is a folder; expected a file, or a pattern: folder/*.jsonl"
                )
            by_pattern = not local.exists() and glob.has_magic(str(local))
            if by_pattern:
                matches = sorted(Path(match) for match in glob.glob(str(local), recursive=True))  # noqa: PTH207 - absolute
                found = [(path.name, path) for path in matches if path.is_file()]
            else:
                if not local.exists():
                    where = "" if local.is_absolute() else f" (looked in {Path.cwd()})"
                    raise DataError(f"{config_key} names {named!r}, which does not exist{where}; expected a file")
                if not local.is_file():
                    raise DataError(f"{config_key} names {named!r}, which is not a file; expected a file")
                found = [(local.name, local)]
    if not found:
        raise DataError(f"{config_key} names {named!r}, which matches no file; expected at least one")
    return found, by_pattern


def _pieces(base: Shard, content: Survey, source: FilesSource, by_pattern: bool) -> list[Shard]:
    """Find out what a file is, and cut it."""
    base = _with(base, stamp=content.stamp)
    try:
        name = base.name.lower()
        if name.endswith(_REFUSED_SUFFIXES) or (content.head.startswith(_ZIP) and source.file_format == "auto"):
            raise BrokenFile(
                ARCHIVE if name.endswith(_ARCHIVE_SUFFIXES) else UNKNOWN_FORMAT,
                "archives are not opened and no member of one is read; unpack it, or pack the file itself with gzip "
                "or zstd",
            )
        compression = compression_of(name, content.head)
        file_format = source.file_format if source.file_format != "auto" else _format_of(name)
        if file_format == "parquet":
            if compression != "none":
                raise BrokenFile(UNKNOWN_FORMAT, "a Parquet file is compressed inside; expected it as it was written")
            return [
                _with(base, file_format="parquet", start=start, stop=stop, first_line=row)
                for start, stop, row in parquet_records.row_groups_of(Path(base.path))
            ]
    except BrokenFile as problem:
        if not by_pattern and problem.reason in (ARCHIVE, UNKNOWN_FORMAT):
            raise DataError(f"{base.config_key} names {source.path!r}: {problem.reason}, {problem.detail}") from problem
        return [_with(base, file_format="unreadable", problem=(problem.reason, problem.detail))]
    if compression != "none":
        _sample_unpacked(base.path, compression, content)
    encoding = source.encoding if source.encoding != "auto" else content.sample.encoding()
    if source.file_format == "auto" and file_format == "json" and _is_json_lines(content.head):
        file_format = "jsonl"
    shard = _with(base, file_format=file_format, compression=compression, encoding=encoding)
    if file_format == "jsonl" and compression == "none" and not needs_transcoding(encoding):
        return cut_lines(shard, content)
    return [shard]


def _records(shard: Shard, path: Path) -> Iterator[tuple[int, Any | Malformed]]:
    if shard.file_format == "parquet":
        return parquet_records.read_parquet_records(path, shard.start, shard.stop, shard.first_line)
    by_line = shard.file_format == "jsonl" and not needs_transcoding(shard.encoding)
    foreign = not is_utf8(shard.encoding)
    return _text_records(shard, None if by_line or not foreign else shard.encoding, by_line and foreign)


def _text_records(
    shard: Shard, transcode_from: str | None, decode_lines: bool
) -> Iterator[tuple[int, Any | Malformed]]:
    with open_bytes(shard.path, shard.compression, transcode_from) as stream:
        if shard.file_format == "json":
            yield from json_records.read_json_records(stream)
        elif shard.file_format in _DELIMITERS:
            encoding = "UTF-8" if transcode_from is None else transcode_from
            yield from csv_records.read_csv_records(stream, _DELIMITERS[shard.file_format], encoding)
        else:
            if shard.start:
                stream.seek(shard.start)
            encoding = shard.encoding if decode_lines else "utf-8"
            yield from json_lines.read_json_lines(stream, shard.stop, encoding, shard.first_line)


def _format_of(name: str) -> str:
    for suffix in _PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    file_format = _FORMATS.get(Path(name).suffix)
    if file_format is None:
        raise BrokenFile(
            UNKNOWN_FORMAT,
            f"its name ends in {Path(name).suffix or 'nothing'!r}; expected one of {', '.join(_FORMATS)}, with or "
            "without .gz or .zst, or its format in file_format",
        )
    return file_format


def _is_json_lines(head: bytes) -> bool:
    """Whether a file called .json begins with an object on its first line and another on the next."""
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not first.startswith(b"{") or not rest.lstrip().startswith(b"{"):
        return False
    try:
        orjson.loads(first)
    except ValueError:
        return False
    return True


def _sample_unpacked(path: str, compression: str, content: Survey) -> None:
    """Judge a compressed file by its content; where that is damaged, reading it will say so."""
    content.sample, content.head = EncodingSample(), b""
    read = 0
    try:
        with open_bytes(path, compression, None) as stream:
            while read < _MAX_SAMPLED_BYTES and not content.sample.complete and (block := stream.read(BLOCK_BYTES)):
                content.sample.add(block)
                content.head = content.head or block[:_HEAD_BYTES]
                read += len(block)
    except BrokenFile as problem:
        log.debug("%s: its encoding is judged by its first %d bytes: %s", path, read, problem)


def _check_unchanged(path: Path, shard: Shard) -> None:
    if _stamp(path.stat()) != shard.stamp:
        raise DataError(f"{shard.config_key} names {shard.name!r}, which changed while it was read; run again")


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}"


def _with(shard: Shard, **changes: Any) -> Shard:
    from dataclasses import replace

    return replace(shard, **changes)
