import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.config import DataSection, JsonlSource
from tasks.contracts.store import Store

WriteLines = Callable[..., JsonlSource]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write records (objects become JSON, bytes stay what they are) to a file and return it as a source."""

    def write(*records: Any, name: str = "rows.jsonl") -> JsonlSource:
        path = tmp_path / name
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in records]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return JsonlSource(path=str(path))

    return write


@pytest.fixture
def data_of() -> Callable[..., DataSection]:
    """Build a data section over one source; malformed lines are all tolerated unless said otherwise."""

    def build(source: JsonlSource, **settings: Any) -> DataSection:
        return DataSection(sources=(source,), **{"max_malformed_share": 1.0, **settings})

    return build
