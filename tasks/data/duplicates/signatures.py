"""MinHash signatures of texts, and where they lie until they are clustered.

The sketch is rensa's R-MinHash (Rust, a variant of Fast Similarity Sketching, arXiv:1704.04370), algorithm version 2.
A signature keeps 8 bits of each of its slots (b-bit minwise hashing, Li and König 2010): two slots agree by chance once
in 256 times, for which similarity() corrects, and a row takes 96 bytes instead of 384.
"""

import math
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tasks.data.duplicates.shingles import Shingles, shingle

SLOTS = 96
"""More cost time a slot; with 128 recall on planted rows is the same (DECISIONS.md)."""
_SEED = 20_240_229
_CHANCE = 1 / 256
_BAND_RECALL = 0.99
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_pack_row = struct.Struct(f"<{SLOTS}I").pack

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class Sketches(Protocol):
    """The sketches of some rows, in memory or in files."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def bands(self) -> int:
        """Number of bands."""

    def band(self, number: int) -> U32:
        """Return one band's hash of every row: (rows,)."""

    def signatures_of(self, positions: Positions) -> U8:
        """Return some rows' signatures: (positions, SLOTS)."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Sketches in memory.

    Attributes:
        band_hashes: (bands, rows); rows that agree in one band are candidates.
        signatures: (rows, SLOTS).
    """

    band_hashes: U32
    signatures: U8

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.signatures)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.band_hashes)

    def band(self, number: int) -> U32:
        """Return one band's hash of every row: (rows,)."""
        column: U32 = self.band_hashes[number]
        return column

    def signatures_of(self, positions: Positions) -> U8:
        """Return some rows' signatures: (positions, SLOTS)."""
        found: U8 = self.signatures[positions]
        return found

    @classmethod
    def joined(cls, parts: Sequence["Sketch"]) -> "Sketch":
        """Join sketches of one threshold, at least one, the rows of each after those of the one before."""
        bands = np.concatenate([part.band_hashes for part in parts], axis=1)
        return cls(bands, np.concatenate([part.signatures for part in parts]))

    def write(self, stem: Path) -> None:
        """Write the two files that SketchFiles reads: `stem` with .bands and .signatures after it, bare arrays."""
        self.band_hashes.astype("<u4").tofile(_bands_path(stem))
        write_signatures(self.signatures, stem)


class SignatureFiles:
    """Signatures in files, one for each chunk of rows; memory holds those that are asked for.

    Several files are joined into one beside the first, whose pages the system may drop again: millions of pairs are
    looked up at random.

    Args:
        stems: the chunks, in the order of their rows.
    """

    def __init__(self, stems: Sequence[Path]) -> None:
        paths = [_signatures_path(stem) for stem in stems]
        self.sizes = [path.stat().st_size // SLOTS for path in paths]
        self._starts = np.cumsum([0, *self.sizes])
        self._joined = paths[0] if len(paths) == 1 else _join_files(paths)

    def signatures_of(self, positions: Positions) -> U8:
        """Return some rows' signatures: (positions, SLOTS)."""
        if len(positions) == 0:
            return np.empty((0, SLOTS), np.uint8)
        found: U8 = np.memmap(self._joined, np.uint8, "r").reshape(-1, SLOTS)[positions]
        return np.asarray(found)


class SketchFiles(SignatureFiles):
    """Sketches in files, two for each chunk of rows; memory holds one band, and the signatures that are asked for.

    Args:
        stems: the chunks, in the order of their rows.
        threshold: what they were sketched for.

    Raises:
        ValueError: a chunk was sketched for another threshold, or its files are not whole.
    """

    def __init__(self, stems: Sequence[Path], threshold: float) -> None:
        super().__init__(stems)
        self._stems = list(stems)
        self.bands = band_count(threshold)
        for stem, rows in zip(self._stems, self.sizes, strict=True):
            expected, found = rows * self.bands * 4, _bands_path(stem).stat().st_size
            if found != expected:
                raise ValueError(
                    f"{_bands_path(stem)}: {found} bytes, expected {expected}; cut off, or not of threshold {threshold}"
                )
        self.rows = sum(self.sizes)

    def band(self, number: int) -> U32:
        """Return one band's hash of every row: (rows,), the files' rows one after the other."""
        column = np.empty(self.rows, np.uint32)
        for stem, start, end in zip(self._stems, self._starts[:-1], self._starts[1:], strict=True):
            rows = int(end - start)
            column[start:end] = np.fromfile(_bands_path(stem), "<u4", rows, offset=number * rows * 4)
        return column


def sketch(texts: Sequence[str], threshold: float) -> Sketch:
    """Sketch texts for finding those whose shingles have at least this Jaccard similarity."""
    return _sketch_of(_slots_of(texts), threshold)


def sketch_conversations(prompts: Sequence[str], answers: Sequence[str], threshold: float) -> tuple[Sketch, Sketch, U8]:
    """Sketch conversations: (sketch of the prompts, sketch of prompt and answer as one set, answers' signatures).

    The smallest value of a slot over two sets is the smaller of the two sets' values, so each text is read once.
    """
    asked, answered = _slots_of(prompts), _slots_of(answers)
    whole = _sketch_of(np.minimum(asked, answered), threshold)
    return _sketch_of(asked, threshold), whole, _low_bits(answered)


def write_signatures(signatures: U8, stem: Path) -> None:
    """Write the file that SignatureFiles reads."""
    signatures.tofile(_signatures_path(stem))


def band_count(threshold: float) -> int:
    """Return the number of bands of a sketch for this threshold."""
    return SLOTS // slots_per_band(threshold)


def slots_per_band(threshold: float) -> int:
    """Return the most slots a band may have so that a pair at the threshold agrees in a band 99 times in 100.

    A pair of similarity s agrees in one of SLOTS // r bands of r slots with probability 1 - (1 - s^r)^(SLOTS // r).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is a Jaccard similarity in (0, 1], found {threshold}")
    fitting = [r for r in range(1, SLOTS // 8 + 1) if 1 - (1 - threshold**r) ** (SLOTS // r) >= _BAND_RECALL]
    return max(fitting, default=1)


def similarity(left: U8, right: U8) -> F32:
    """Estimate the Jaccard similarity of pairs of signatures, both (pairs, SLOTS); standard error ≤ 0.052."""
    agreeing = np.count_nonzero(left == right, axis=1) / np.float32(SLOTS)
    estimate: F32 = np.maximum((agreeing - np.float32(_CHANCE)) / np.float32(1 - _CHANCE), 0).astype(np.float32)
    return estimate


def accepted_from(threshold: float) -> float:
    """Return the least estimate that counts: a standard error below the threshold, so that pairs at it are found."""
    return threshold - math.sqrt(threshold * (1 - threshold) / SLOTS)


def _slots_of(texts: Sequence[str]) -> U32:
    blocks = [_slots(shingles) for shingles in shingle(texts)]
    return np.concatenate(blocks) if blocks else np.empty((0, SLOTS), np.uint32)


def _sketch_of(slots: U32, threshold: float) -> Sketch:
    return Sketch(_band_hashes(slots, slots_per_band(threshold)), _low_bits(slots))


def _slots(shingles: Shingles) -> U32:
    """Sketch each row's set of shingles: (rows, SLOTS)."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.hashes, shingles.offsets, SLOTS, _SEED)
    # rensa hands out lists only. Packing them takes half the time that numpy takes to read them.
    packed = b"".join([_pack_row(*row) for row in matrix.to_rows()])
    return np.frombuffer(packed, "<u4").reshape(-1, SLOTS)


def _band_hashes(slots: U32, per_band: int) -> U32:
    """Hash each row's bands of slots: (bands, rows)."""
    bands = SLOTS // per_band
    banded = slots[:, : bands * per_band].reshape(len(slots), bands, per_band)
    hashes = np.zeros((len(slots), bands), np.uint64)
    for slot in range(per_band):
        hashes += banded[:, :, slot]
        hashes *= _FACTOR
    return np.ascontiguousarray((hashes >> np.uint64(32)).astype(np.uint32).T)


def _low_bits(slots: U32) -> U8:
    """Keep 8 well mixed bits of each slot."""
    return (slots * np.uint32(0x9E3779B1) >> np.uint32(24)).astype(np.uint8)


def _join_files(paths: Sequence[Path]) -> Path:
    """Write the files one after the other into a new one beside the first; none at all make an empty path."""
    if not paths:
        return Path()
    joined = paths[0].with_name(f"{paths[0].name}.joined")
    with joined.open("wb") as whole:
        for path in paths:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
    return joined


def _bands_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".bands")


def _signatures_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".signatures")
