"""Records of a source that is no file, written to JSONL chunks, each run's new ones as one chunk more.

    <cache>/<digest of the source's settings>/state.json        the chunks, the watermark, and what was read at its edge
                                              chunk-000001.jsonl, …

`state.json` is replaced whole, after the chunk is complete. A crash before it leaves a chunk that no state names: the
next run reads the same records again and writes over it, so nothing is lost and nothing stands twice.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of
from tasks.data.formats import kind_of
from tasks.data.shown import without_values
from tasks.data.sources.files import cut_lines, survey
from tasks.data.sources.shard import Shard

MAX_EDGE_RECORDS = 500_000
"""Records with one watermark value that can be told apart in the next run."""

Watermark = str | int | float | datetime | date | Decimal
_KINDS: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "Decimal": Decimal,
}
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


@dataclass
class State:
    """What earlier runs read.

    Attributes:
        chunks: name, number of records and sum of record digests of each chunk.
        watermark: the largest value read; None before the first record.
        edge: digest → count of the records with that value.
        input: of a source that is read whole, a digest of what it was read from.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    watermark: Watermark | None = None
    edge: Counter[str] = field(default_factory=Counter)
    input: str = ""


class MaterialisedSource:
    """The chunks of one source, open under a lock: a second process waits."""

    def __init__(self, folder: Path, config_key: str) -> None:
        self._folder = folder
        self._config_key = config_key
        self.state = _read_state(folder / "state.json", config_key)

    def append(self, records: Iterable[tuple[dict[str, Any], Watermark | None]]) -> None:
        """Add the records that earlier runs have not read, each with its watermark, as one chunk.

        Raises:
            DataError: a watermark is missing or cannot be compared, or too many records share the last one.
        """
        edge = _Edge(self.state, self._config_key)
        chunk = self._write_chunk(len(self.state.chunks) + 1, edge.new(records))
        if chunk is not None:
            self._save(State([*self.state.chunks, chunk], edge.watermark, edge.records))

    def replace(self, records: Iterable[dict[str, Any]], input_digest: str = "") -> None:
        """Let the chunks be these records and no others.

        Args:
            records: the whole content of the source.
            input_digest: of what they are read from; the next run can compare it before it reads.
        """
        # Written beside the last one: until the state names it, the old chunk is the content.
        number = int(self.state.chunks[-1]["name"][6:12]) + 1 if self.state.chunks else 1
        chunk = self._write_chunk(number, (spelled(record, self._config_key) for record in records))
        self._save(State([chunk] if chunk else [], input=input_digest))

    def shards(self, index: int, name: str) -> list[Shard]:
        """Return the pieces of all chunks; their names do not say in how many runs the records came."""
        shards = []
        for chunk in self.state.chunks:
            path = self._folder / chunk["name"]
            try:
                content = survey(path)
            except OSError as error:
                raise DataError(
                    f"{self._config_key} was read into {path}, which is gone or unreadable ({error.strerror}); "
                    f"delete {self._folder} to read everything again"
                ) from error
            if content.sha256 != chunk["sha256"]:
                raise DataError(
                    f"{self._config_key} was read into {path}, which was changed since; "
                    f"delete {self._folder} to read everything again"
                )
            base = Shard(index, name, str(path), stamp=content.stamp, config_key=self._config_key)
            shards += cut_lines(base, content)
        return shards

    def content(self) -> list[Any]:
        """Return number and digest of all records: the same in whatever order and number of runs they came."""
        total = sum(int(chunk["sum"], 16) for chunk in self.state.chunks) % 2**256
        return [sum(chunk["records"] for chunk in self.state.chunks), f"{total:064x}"]

    def _write_chunk(self, number: int, lines: Iterable[bytes]) -> dict[str, Any] | None:
        name = f"chunk-{number:06d}.jsonl"
        part = self._folder / f"{name}.part"
        content, records, total = hashlib.sha256(), 0, 0
        try:
            with part.open("wb") as file:
                for line in lines:
                    file.write(line)
                    content.update(line)
                    total += int.from_bytes(hashlib.sha256(line).digest())
                    records += 1
                file.flush()
                os.fsync(file.fileno())
            if not records:
                return None
            part.replace(self._folder / name)
        finally:
            part.unlink(missing_ok=True)
        return {"name": name, "records": records, "sha256": content.hexdigest(), "sum": f"{total % 2**256:064x}"}

    def _save(self, state: State) -> None:
        watermark = state.watermark
        value = {
            "chunks": state.chunks,
            "watermark": None if watermark is None else [type(watermark).__name__, _text_of(watermark)],
            "edge": dict(state.edge),
            "input": state.input,
        }
        part = self._folder / "state.json.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / "state.json")
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.state = state
        kept = {chunk["name"] for chunk in state.chunks}
        for path in self._folder.glob("chunk-*"):
            if path.name not in kept:
                path.unlink()


@contextmanager
def open_materialised(cache: Path, settings: dict[str, Any], config_key: str) -> Iterator[MaterialisedSource]:
    """Open the chunks of the source with these settings; other settings are another source.

    Raises:
        DataError: the folder's state is damaged.
    """
    folder = cache / digest_of(settings)[:32]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield MaterialisedSource(folder, config_key)


def spelled(record: dict[str, Any], config_key: str) -> bytes:
    """Spell a record as one line of JSON, the same for the same values on any machine.

    Dates are spelled as in ISO 8601, decimals and what else JSON does not know as text, bytes as UTF-8 or hex digits.

    Args:
        record: the record.
        config_key: where its source stands in the configuration, for error messages.

    Raises:
        DataError: the record is nested too deeply.
    """
    try:
        return orjson.dumps(record, default=_plain, option=_OPTIONS)
    except TypeError:  # half a surrogate, a number of more than 64 bits, or hundreds of levels: the reader judges them
        return _spelled_slowly(record, config_key)


def _spelled_slowly(record: dict[str, Any], config_key: str) -> bytes:
    try:
        line = json.dumps(record, sort_keys=True, separators=(",", ":"), default=_plain)
    except RecursionError as error:
        raise DataError(
            f"{config_key} has a record that is nested too deeply to be written; expected fewer than 900 levels"
        ) from error
    return line.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.hex()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)


class _Edge:
    """Tells new records from those that were read, by their watermark, and at its last value by their digests."""

    def __init__(self, state: State, config_key: str) -> None:
        self._config_key = config_key
        self._read_until = state.watermark
        self._read = Counter(state.edge)
        self.watermark = state.watermark
        self.records = Counter(state.edge)

    def new(self, records: Iterable[tuple[dict[str, Any], Watermark | None]]) -> Iterator[bytes]:
        for record, mark in records:
            line = spelled(record, self._config_key)
            if mark is None or isinstance(mark, bool) or type(mark).__name__ not in _KINDS:
                raise DataError(
                    f"{self._config_key} has a record whose watermark is {kind_of(mark)}; expected a number, a text "
                    "or a time in every record"
                )
            if self._read_until is not None and self._compare(mark, self._read_until) < 0:
                continue
            digest = hashlib.sha256(line).hexdigest()[:32]
            if mark == self._read_until and self._read[digest] > 0:
                self._read[digest] -= 1
                continue
            if self.watermark is None or self._compare(mark, self.watermark) > 0:
                self.watermark = mark
                self.records = Counter()
            if mark == self.watermark:
                self.records[digest] += 1
                if len(self.records) > MAX_EDGE_RECORDS:
                    raise DataError(
                        f"{self._config_key} has more than {MAX_EDGE_RECORDS:,} records with one watermark; "
                        "expected a finer one, such as a time with seconds or a growing number"
                    )
            yield line

    def _compare(self, mark: Any, other: Any) -> int:
        try:
            return int(mark > other) - int(mark < other)
        except TypeError as error:
            raise DataError(
                f"{self._config_key} has the watermarks {kind_of(mark)} and {kind_of(other)}, which cannot be "
                "compared; expected values of one kind"
            ) from error


def _text_of(watermark: Watermark) -> str:
    return watermark.isoformat() if isinstance(watermark, date) else str(watermark)


def _read_state(path: Path, config_key: str) -> State:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        mark = value["watermark"]
        watermark = None if mark is None else _KINDS[mark[0]](mark[1])
        return State(value["chunks"], watermark, Counter(value["edge"]), value["input"])
    except FileNotFoundError:
        return State()
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(
            f"{config_key}: {path} is no state of a source ({without_values(str(error), names=False)}); delete "
            f"{path.parent} to read everything again"
        ) from error
