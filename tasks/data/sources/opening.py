"""The two doors of a source: open it (its bytes come to this machine and are cut), and read a piece of it into rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.contracts.jsonl import digest_of
from tasks.contracts.source_config import (
    DocstringSource,
    FilesSource,
    HttpSource,
    HuggingFaceSource,
    ServedLogSource,
    Source,
    SourceSection,
    SqlSource,
)
from tasks.data.formats import row_builder
from tasks.data.rows import NOT_A_ROW, Rejection, Row, UnusableRow
from tasks.data.sources import docstrings, files, http_api, huggingface, served_log, sql
from tasks.data.sources.columns import PartColumns
from tasks.data.sources.shard import EXCERPT_CHARS, Malformed, OpenedSource, Shard

# How records become rows; the rest of a source's settings says where they lie, and is in the content.
_ROW_SETTINGS = {
    *("kind", "slice", "slice_column", "row_format", "columns", "file_format", "encoding"),
    *("instruction", "max_code_chars"),
}


def open_source(
    source: Source,
    index: int,
    config_key: str,
    cache: Path,
    request_log: Path | None = None,
    feedback_log: Path | None = None,
) -> OpenedSource:
    """Bring a source's bytes to this machine and cut them into pieces.

    Files are read through once, for their digest. Other sources are first written to JSONL below `cache`: with a
    watermark, what is new is added to what earlier runs read.

    Args:
        source: the source's section.
        index: its place in its config key, from 0.
        config_key: where it stands in the configuration.
        cache: the folder for what is fetched, `Home.root / "sources"`.
        request_log: what a served_log source reads if its `requests_path` is empty.
        feedback_log: the same for `feedback_path`.

    Raises:
        DataError: the source cannot be read, or is empty where that can only be a mistake.
        EnvironmentProblem: a package or an environment variable that the source needs is missing.
    """
    shards: list[Shard]
    content: Any
    if isinstance(source, FilesSource):
        shards, content = files.open_files(source, index, config_key, cache)
    elif isinstance(source, DocstringSource):
        shards, content = [Shard(index, docstrings.SOURCE_NAME, "", file_format="docstrings")], docstrings.fingerprint()
    elif isinstance(source, SqlSource):
        shards, content = sql.open_query(source, index, config_key, cache)
    elif isinstance(source, HttpSource):
        shards, content = http_api.open_api(source, index, config_key, cache)
    elif isinstance(source, HuggingFaceSource):
        shards, content = huggingface.open_dataset(source, index, config_key, cache)
    else:
        shards, content = served_log.open_log(source, index, config_key, cache, request_log, feedback_log)
    settings = source.model_dump(mode="json", include=_ROW_SETTINGS)
    names = sorted({shard.name for shard in shards})  # rows name their source
    return OpenedSource(shards, digest_of({"settings": settings, "names": names, "content": content}))


def read_shard(shard: Shard, source: Source, columns: PartColumns | None = None) -> Iterator[Row | Rejection]:
    """Yield a row or a rejection for every record of a piece, in any process.

    A rejection's `line` is the line of the file, or the number of the record where files have no lines.

    Args:
        shard: the piece.
        source: what it is a piece of.
        columns: looks at every record.

    Raises:
        DataError: the file is gone, cannot be read, or changed since it was opened.
    """
    if isinstance(source, DocstringSource):
        yield from docstrings.read_rows(source)
        return
    build = _builder(source, shard.name)
    for number, record in files.read_file(shard):
        if columns is not None:
            columns.look(record)
        try:
            row = build(record)
        except UnusableRow as problem:
            if isinstance(record, Malformed):
                yield Rejection(record.reason, _sayable(record.detail), shard.name, number, _sayable(record.excerpt))
            else:
                yield Rejection(NOT_A_ROW, _sayable(str(problem)), shard.name, number, excerpt_of_record(record))
        else:
            yield row


def _builder(source: Source, name: str) -> Callable[[object], Row]:
    if isinstance(source, ServedLogSource):
        return served_log.row_builder(source, name)
    assert isinstance(source, SourceSection)
    return row_builder(source, name)


def excerpt_of_record(record: object) -> str:
    """Return the beginning of a record that is no row, as JSON."""
    import json

    try:
        text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a record that is too deep to be shown ({type(record).__name__})"
    return _sayable(text[:EXCERPT_CHARS])


def _sayable(text: str) -> str:
    """Replace half surrogates, which no file of rejections takes."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")
