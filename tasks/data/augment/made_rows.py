"""Rows that are made of training rows, put among them: none asks what an evaluation row asks, or nearly so."""

import heapq
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tasks.contracts.config import DataSection
from tasks.data.augment.held_out import HeldOut
from tasks.data.division.index import drawn
from tasks.data.division.slice_shares import within_share
from tasks.data.division.split import NEAR_DUPLICATE, NEAR_TWIN, TWIN, UNBALANCED
from tasks.data.lines import LineReader, LineWriter
from tasks.data.rows import Row, row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MADE = "made"
NEAR_EVALUATION = "alike an evaluation row"

_BATCH_ROWS = 2_048
_ID_BYTES = 32


@dataclass(frozen=True)
class Made:
    """What came of the methods.

    Attributes:
        counts: method → rows made ("made"), and tries that made none, by reason.
        steps: method → what each cleaning step changed and dropped of what it made, in the order of the line.
    """

    counts: dict[str, dict[str, int]]
    steps: dict[str, list[dict[str, Any]]]

    @property
    def rows(self) -> int:
        """Rows made by all methods."""
        return sum(counts.get(MADE, 0) for counts in self.counts.values())


def add_made_rows(
    directory: Path, data: DataSection, tokenizer: Path | None = None, erased: frozenset[str] = frozenset()
) -> Made:
    """Make rows of those in `train.jsonl` as data.augment says, and write them into it, by id.

    They pass the cleaning line and the limits of `data`, and no slice gets over data.max_slice_share by them.
    data.train_rows does not count them.

    Args:
        directory: a data set with its `train.jsonl`, `eval.jsonl` and `rejected.jsonl`.
        data: how rows are made and cleaned, and from which similarity they are near duplicates.
        tokenizer: directory of the tokenizer that a length step counts with.
        erased: marks of records that must not be made again.

    Raises:
        ConfigError: a file, model or key that a method needs is missing.
        DataError: an endpoint refuses.
    """
    from tasks.data.augment.augmentation import Augmentation, prompt_key
    from tasks.data.augment.made_line import MadeLine

    train = directory / "train.jsonl"
    slices: Counter[str] = Counter()
    taken = {prompt_key(row) for row in _not_to_train_on(directory)}
    for row in _rows(train):
        taken.add(prompt_key(row))
        slices[row["slice"]] += 1
    line = MadeLine(data, tokenizer, erased)
    augmentation = Augmentation(data.augment, line)
    held_out = HeldOut(_not_to_train_on(directory), data.near_duplicates)
    with LineWriter(directory / "work-made.jsonl") as writer:
        written = _Written(writer)
        rows = augmentation.run(_rows(train), taken)
        while batch := list(islice(rows, _BATCH_ROWS)):
            written.write(batch, held_out.alike(batch))
    stays = written.within_share(slices, data)
    _merge(train, directory / "work-made.jsonl", written, stays)
    counts = {name: dict(found) for name, found in augmentation.counts.items()}
    for reason, refused in ((NEAR_EVALUATION, written.alike), (UNBALANCED, written.methods_of(~stays))):
        for name, number in refused.items():
            counts[name][MADE] -= number
            counts[name][reason] = number
    return Made(counts, line.steps())


class _Written:
    """The made rows in a file, and of each its place there, id, slice and method.

    Attributes:
        alike: method → rows that were not written, being alike an evaluation row.
    """

    def __init__(self, writer: LineWriter) -> None:
        self.alike: Counter[str] = Counter()
        self.writer = writer
        self._ids = bytearray()
        self._slices, self._methods = _Names(), _Names()

    def write(self, rows: list[Row], is_alike: "NDArray[np.bool_]") -> None:
        """Write those of the rows that are not alike."""
        for row, alike in zip(rows, is_alike, strict=True):
            if alike:
                self.alike[row["meta"]["method"]] += 1
                continue
            self.writer.write(row_line(row))
            self._ids += bytes.fromhex(row["id"])
            self._slices.add(row["slice"])
            self._methods.add(row["meta"]["method"])

    def id_of(self, place: int) -> str:
        """Return the id of a row as it is spelled."""
        return self._ids[place * _ID_BYTES : (place + 1) * _ID_BYTES].hex()

    def methods_of(self, rows: "NDArray[np.bool_]") -> Counter[str]:
        """Count some rows by method."""
        import numpy as np

        return Counter(self._methods.names[self._methods.codes[place]] for place in np.flatnonzero(rows))

    def within_share(self, trained: Counter[str], data: DataSection) -> "NDArray[np.bool_]":
        """Say (rows,) which rows stay so that no slice has more than data.max_slice_share, made rows included.

        Training rows keep their places, for they keep the share among themselves; of the made ones it is drawn by id
        which stay.

        Args:
            trained: slice → training rows.
            data: share and seed.
        """
        import numpy as np

        rows = len(self._slices.codes)
        stays = np.ones(rows, bool)
        if data.max_slice_share == 1:
            return stays
        old = np.repeat([self._slices.code_of(name) for name in trained], list(trained.values())).astype(np.int32)
        keys = np.frombuffer(self._ids, ">u8").reshape(rows, -1)[:, :2].astype("u8")
        order = np.argsort(drawn(keys, data.seed))
        new = np.array(self._slices.codes, np.int32)[order]
        within = within_share(np.concatenate([old, new]), data.max_slice_share, len(old) + len(new))
        assert within[: len(old)].all(), "the training rows keep the share"
        stays[order] = within[len(old) :]
        return stays


class _Names:
    """A column of names, as places in the list of those that were seen."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.codes = array("i")
        self._places: dict[str, int] = {}

    def code_of(self, name: str) -> int:
        """Return the place of a name."""
        if name not in self._places:
            self._places[name] = len(self.names)
            self.names.append(name)
        return self._places[name]

    def add(self, name: str) -> None:
        """Add a row with this name."""
        self.codes.append(self.code_of(name))


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from map(orjson.loads, file)


def _not_to_train_on(directory: Path) -> Iterator[Row]:
    """Yield the evaluation rows, the rest of their clusters, and the near duplicates of all of these."""
    held_out: set[str] = set()
    for row in _rows(directory / "eval.jsonl"):
        held_out.add(row["id"])
        yield row
    for record in _rejected(directory, TWIN, NEAR_TWIN):
        held_out.add(record["row"]["id"])
        yield record["row"]
    for record in _rejected(directory, NEAR_DUPLICATE):
        if not held_out.isdisjoint(record["detail"].replace(",", " ").split()):
            yield record["row"]


def _rejected(directory: Path, *reasons: str) -> Iterator[dict[str, Any]]:
    spelled = [reason.encode() for reason in reasons]
    with (directory / "rejected.jsonl").open("rb") as file:
        for line in file:
            if any(reason in line for reason in spelled):
                record = orjson.loads(line)
                if record["reason"] in reasons and record["row"] is not None:
                    yield record


def _merge(train: Path, made: Path, written: _Written, stays: "NDArray[np.bool_]") -> None:
    """Write training rows and the made rows that stay into one file, sorted by id."""
    import numpy as np

    order = sorted(map(int, np.flatnonzero(stays)), key=written.id_of)
    joined = train.with_name("work-train.jsonl")
    places = written.writer.offsets, written.writer.lengths
    with train.open("rb") as old, LineReader([made]) as new, joined.open("wb") as out:
        known = ((orjson.loads(line)["id"], line) for line in old)
        added = ((written.id_of(place), new.read(0, places[0][place], places[1][place])) for place in order)
        out.writelines(line for _, line in heapq.merge(known, added))
    joined.replace(train)
    made.unlink()
