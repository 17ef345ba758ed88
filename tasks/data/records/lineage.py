"""Which row, as it was read, a row of a data version comes from: pairs of ids.

They stand in the store beside the versions and not in them. The digest of a text before it got pseudonyms, next to the
text that has them, would let whoever holds the version try telephone numbers until one fits.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ID_BYTES = 32
_FILE = "pairs"


class Lineage:
    """Pairs of ids of one file of rows, 64 bytes each: what a row became, and what it was."""

    def __init__(self) -> None:
        self._pairs = bytearray()

    def extend(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add pairs of ids: the new one, the one before."""
        for new, old in pairs:
            self._pairs += bytes.fromhex(new + old)

    def write(self, path: Path) -> None:
        """Write the pairs into a file that `keep_lineage` reads."""
        path.write_bytes(self._pairs)


def keep_lineage(store: Store, dataset_inputs: dict[str, Any], parts: Iterable[Path]) -> None:
    """Keep the pairs of the data version that these inputs determine.

    Args:
        store: gets an entry of the kind lineage.
        dataset_inputs: what the key of the data version is made of.
        parts: files that `Lineage` wrote. Their order does not matter, and a pair may stand in several.
    """

    def write(directory: Path) -> dict[str, Any]:
        with (directory / _FILE).open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
            return {"pairs": whole.tell() // (2 * _ID_BYTES)}

    store.produce("lineage", dataset_inputs, write)


def relatives(store: Store, ids: Iterable[str]) -> set[str]:
    """Return the ids that rows had as they were read, and those that any line of steps gave the same rows.

    Args:
        store: with the lineage of every data version.
        ids: of rows in any spelling; they are part of the result.
    """
    known = set(ids)
    for column in (0, 1):  # first up to what was read, then down to whatever was made of it
        new = set(known)
        while new:
            new = {other for pairs in _kept(store) for other in _partners(pairs, column, new)} - known
            known |= new
    return known


def spellings_in(directory: Path, ids: Iterable[str]) -> set[str]:
    """Return these ids, and those that an unfinished version in `directory` has made of them.

    Args:
        directory: with the files of `Lineage`, at any depth.
        ids: of rows as they were read, among others.
    """
    known = set(ids)
    for path in directory.rglob("*.lineage"):
        pairs = path.read_bytes()
        for at in range(0, len(pairs) - 2 * _ID_BYTES + 1, 2 * _ID_BYTES):
            if pairs[at + _ID_BYTES : at + 2 * _ID_BYTES].hex() in known:
                known.add(pairs[at : at + _ID_BYTES].hex())
    return known


def _kept(store: Store) -> "Iterator[NDArray[np.uint8]]":
    import numpy as np

    for entry in store.entries("lineage"):
        if entry.facts["pairs"]:  # an empty file has no map
            yield np.memmap(entry.path / _FILE, np.uint8, "r").reshape(-1, 2, _ID_BYTES)


def _partners(pairs: "NDArray[np.uint8]", column: int, ids: set[str]) -> Iterator[str]:
    """Yield the other id of each pair that has one of `ids` in this column."""
    import numpy as np

    wanted = np.frombuffer(bytes.fromhex("".join(sorted(ids))), np.uint8).reshape(-1, _ID_BYTES)
    # Eight bytes say for nearly every pair that it is none of them.
    beginnings = np.ascontiguousarray(pairs[:, column, :8]).view(np.uint64).reshape(-1)
    likely = np.flatnonzero(np.isin(beginnings, np.ascontiguousarray(wanted[:, :8]).view(np.uint64)))
    for place in likely:
        if pairs[place, column].tobytes().hex() in ids:
            yield pairs[place, 1 - column].tobytes().hex()
