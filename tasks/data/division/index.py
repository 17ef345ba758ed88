"""What is known of each row without its text: identity, hashes, slice, and where its line lies.

About a hundred bytes a row, so that millions of rows are sorted, compared and divided in memory while their text stays
on disk.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.division.turns import Turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCES, EVALUATION, FROZEN, SHADOW, KNOWN = 0, 1, 2, 3, 4
"""Origins: rows of data.sources, of data.evaluation_sources, and of an evaluation set that was frozen; and what is only
compared: those frozen rows as today's cleaning line words them, and what the frozen version trained on, likewise."""

COLUMNS = ("id", "tie", "conversation", "prompt", "offset", "length")


@dataclass(frozen=True)
class Index:
    """Rows of several files of lines.

    Attributes:
        id: (rows, 32) bytes of the row's id (sha256).
        tie: (rows,) hash of the whole line: an order among rows with one id.
        conversation: (rows, 2) 128-bit hash of the conversation but for case and white space.
        prompt: (rows, 2) the same of the messages before the answer.
        slice: (rows,) place in `slices`.
        origin: (rows,) SOURCES, EVALUATION, FROZEN, SHADOW or KNOWN.
        file: (rows,) place in `files`.
        offset: (rows,) where the line begins, in bytes.
        length: (rows,) its bytes, with the line feed.
        slices: names of slices, sorted.
        files: the files of lines.
        turns: how rows of several turns begin.
        shadows: (shadows, 2) each shadow and its frozen row.
    """

    id: "NDArray[np.uint8]"
    tie: "NDArray[np.uint64]"
    conversation: "NDArray[np.uint64]"
    prompt: "NDArray[np.uint64]"
    slice: "NDArray[np.int32]"
    origin: "NDArray[np.int8]"
    file: "NDArray[np.int32]"
    offset: "NDArray[np.int64]"
    length: "NDArray[np.int32]"
    slices: tuple[str, ...]
    files: tuple[Path, ...]
    turns: Turns | None = None
    shadows: "NDArray[np.int64] | None" = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tie)

    @property
    def is_counted(self) -> "NDArray[np.bool_]":
        """(rows,) whether a row goes somewhere; the others are only compared."""
        return self.origin < SHADOW

    @cached_property
    def id_key(self) -> "NDArray[np.uint64]":
        """(rows, 2) the first 128 bits of the ids, which sort as the ids do."""
        return self.id[:, :16].copy().view(">u8").astype("u8")

    @cached_property
    def rank(self) -> "NDArray[np.int64]":
        """(rows,) the place of each row in the order of ids, which does not depend on how they were read."""
        import numpy as np

        order = np.argsort(self.id_key[:, 0], kind="stable")
        first = self.id_key[order, 0]
        tied = np.flatnonzero(np.append(False, first[1:] == first[:-1]) | np.append(first[1:] == first[:-1], False))
        some = order[tied]
        order[tied] = some[np.lexsort((self.origin[some], self.tie[some], self.id_key[some, 1], self.id_key[some, 0]))]
        rank = np.empty(len(self), np.int64)
        rank[order] = np.arange(len(self))
        return rank

    def id_of(self, row: int) -> str:
        """Return the id of a row as it is spelled in the row: 64 hex digits."""
        identity: bytes = self.id[row].tobytes()
        return identity.hex()


def drawn(key: "NDArray[np.uint64]", seed: int) -> "NDArray[np.uint64]":
    """Return (n,) numbers that order (n, 2) hashes at random, by nothing but them and the seed.

    Mixed as in SplitMix64 (Steele, Lea and Flood 2014).
    """
    import numpy as np

    mixed: NDArray[np.uint64] = key[:, 0] ^ np.uint64((seed + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31)) ^ key[:, 1]


@dataclass(frozen=True)
class IndexedFile:
    """A file of lines that a job wrote, its columns (`COLUMNS`, a .npz) and the slices they name.

    Attributes:
        lines: the file of lines.
        columns: the .npz, with "slice" as places in `slices`.
        slices: names of the slices in this file.
        origin: SOURCES, EVALUATION, FROZEN, SHADOW or KNOWN.
    """

    lines: Path
    columns: Path
    slices: tuple[str, ...]
    origin: int


def load_columns(path: Path) -> "dict[str, Any]":
    """Return the arrays of a .npz; the file is closed again, because there are many."""
    import numpy as np

    with np.load(path, allow_pickle=False) as columns:
        return dict(columns)


def join_indexes(parts: list[IndexedFile]) -> Index:
    """Return the index of several files."""
    import numpy as np

    names = tuple(sorted({name for part in parts for name in part.slices}))
    place = {name: number for number, name in enumerate(names)}
    loaded = [load_columns(part.columns) for part in parts]
    sizes = [len(columns["tie"]) for columns in loaded]

    def column(name: str) -> "Any":
        return np.concatenate([columns[name] for columns in loaded])

    slices = [
        np.array([place[name] for name in part.slices], np.int32)[columns["slice"]]
        for part, columns in zip(parts, loaded, strict=True)
    ]
    return Index(
        **{name: column(name) for name in COLUMNS},
        slice=np.concatenate(slices),
        origin=np.repeat(np.array([part.origin for part in parts], np.int8), sizes),
        file=np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        slices=names,
        files=tuple(part.lines for part in parts),
        turns=Turns.joined(loaded, sizes),
    )
