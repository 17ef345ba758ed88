import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.home import Home
from tasks.contracts.source_config import FilesSource
from tasks.contracts.store import Store
from tasks.data.ingest import Place

WriteLines = Callable[..., FilesSource]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def place(tmp_path: Path, store: Store) -> Place:
    return Place(Home(tmp_path / "home"), store)


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write records (objects become JSON, bytes stay what they are) to a file and return it as a source."""

    def write(*records: Any, name: str = "rows.jsonl") -> FilesSource:
        path = tmp_path / name
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in records]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return FilesSource(path=str(path))

    return write


@pytest.fixture
def data_of() -> Callable[..., DataSection]:
    """Build a data section over one source.

    Malformed lines are all tolerated, and near duplicates are not looked for, unless said otherwise.
    """

    def build(source: FilesSource, **settings: Any) -> DataSection:
        return DataSection(sources=(source,), **{"max_malformed_share": 1.0, "near_duplicates": 0, **settings})

    return build
