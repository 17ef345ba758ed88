"""Sources read into canonical rows, once for the same content: `rows.jsonl` and `rejected.jsonl`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import RowSet
from tasks.contracts.config import DataSection, JsonlSource, Source
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store, code_digest
from tasks.data import docstring_source, jsonl_source
from tasks.data.rows import Rejection, Row


def ingest(data: DataSection, store: Store, sources: tuple[Source, ...]) -> RowSet:
    """Read `sources` (those of `data.sources` or of `data.evaluation_sources`) into canonical rows.

    A rejected line is recorded with its source's name and its place in `sources`, from 0.

    The store's key is made of the sources' contents and names without directories, so unchanged sources are not read
    again, here or on another machine.

    Raises:
        DataError: there is no source, one cannot be read, or a file has too many malformed lines.
    """
    if not sources:
        raise DataError("data.sources is empty; expected at least one source of kind jsonl or docstrings")
    described = [_describe(source, _config_key(source, data)) for source in sources]
    inputs = {
        "sources": described,
        "max_malformed_share": data.max_malformed_share,
        "code": code_digest("tasks/data", "tasks/contracts"),
    }

    def write(directory: Path) -> dict[str, Any]:
        rejected: list[dict[str, Any]] = []

        def kept() -> Iterator[Row]:
            for index, (source, description) in enumerate(zip(sources, described, strict=True)):
                for result in _read(source, description["digest"], data):
                    if isinstance(result, Rejection):
                        # Files in two folders may have one name, and paths must not enter the store.
                        rejected.append({**asdict(result), "source_index": index})
                    else:
                        yield result

        rows_kept = write_jsonl(directory / "rows.jsonl", kept())
        write_jsonl(directory / "rejected.jsonl", rejected)
        by_reason = Counter(record["reason"] for record in rejected)
        return {"rows_read": rows_kept + len(rejected), "rows_kept": rows_kept, "rejected": dict(by_reason)}

    entry = store.produce("rows", inputs, write)
    return RowSet(path=entry.path, digest=entry.digest, **entry.facts)


def _describe(source: Source, config_key: str) -> dict[str, Any]:
    """Return what determines the rows of a source: its digest, and its settings but for where it lies."""
    settings = source.model_dump(mode="json")
    if isinstance(source, JsonlSource):
        name = Path(source.path).name
        return {**settings, "path": name, "digest": jsonl_source.fingerprint(source, config_key)}
    return {**settings, "digest": docstring_source.fingerprint()}


def _read(source: Source, digest: str, data: DataSection) -> Iterator[Row | Rejection]:
    if isinstance(source, JsonlSource):
        return jsonl_source.read_rows(source, digest, data.max_malformed_share, _config_key(source, data))
    return docstring_source.read_rows(source)


def _config_key(source: Source, data: DataSection) -> str:
    return "data.sources" if source in data.sources else "data.evaluation_sources"
