"""Clusters of near duplicates from sketches: the same whatever the order of the rows or the files they came in.

Rows are told apart by their keys alone. Each band puts rows with one hash into a bucket; they are compared with the
bucket's smallest key, those that are unlike it with the smallest among themselves, and so on a few times: the work
grows with the number of rows, not of pairs. Pairs whose signatures agree enough are joined (union-find).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.data.duplicates.components import smallest_linked
from tasks.data.duplicates.signatures import (
    F32,
    U32,
    Positions,
    Sketches,
    accepted_from,
    band_count,
    similarity,
)

_BUCKET_ROUNDS = 4
_STAR_ROUNDS = 16
_BLOCK_PAIRS = 1 << 16
_HALF = np.uint64(32)
_RANK_BITS = np.uint64(0xFFFFFFFF)

Ranks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Who belongs together. All arrays are (rows,) and name rows by their position.

    Attributes:
        component: the row with the smallest key among all that near duplicates link to this one, over any number of
            links; what must stay on one side of a split. A row like no other has itself.
        representative: the row that stands for this one when near duplicates are dropped: its signature was compared
            with this row's. Rows that stand for themselves are kept.
        similarity: estimated Jaccard similarity with the representative; 1 for itself.
    """

    component: Positions
    representative: Positions
    similarity: F32


@dataclass(frozen=True, slots=True)
class Matches:
    """For each row the most similar row of another set.

    Attributes:
        position: (rows,) its position there; -1: none is similar enough.
        similarity: (rows,) estimated Jaccard similarity; 0 where there is none.
    """

    position: Positions
    similarity: F32


def find_clusters(sketches: Sketches, keys: Keys, threshold: float, among: Mask | None = None) -> Clusters:
    """Cluster rows whose similarity is at least the threshold.

    Args:
        sketches: of all rows.
        keys: (rows,) what tells rows apart and orders them, for example the first 8 bytes of their ids.
        threshold: Jaccard similarity of the shingles, in (0, 1]; the one the sketches were made for.
        among: (rows,) the rows that take part; the others stand for themselves.

    Raises:
        ValueError: there are more or fewer keys than sketches, or the sketches were made for another threshold.
    """
    _check(sketches, keys, threshold)
    by_key = np.argsort(keys, kind="stable")  # rank → position
    if among is not None:
        by_key = by_key[among[by_key]]
    compared = _Comparison(sketches, by_key, accepted_from(threshold))
    root: Ranks = np.arange(len(by_key))
    for number in range(sketches.bands):
        left, right = _links_of_band(sketches.band(number)[by_key], root, compared)
        root = _join(root, left, right)
    stands_for, estimate = _assign(root, compared)
    component, representative = np.arange(sketches.rows), np.arange(sketches.rows)
    component[by_key], representative[by_key] = by_key[root], by_key[stands_for]
    values = np.ones(sketches.rows, np.float32)
    values[by_key] = estimate
    return Clusters(component, representative, values)


def find_matches(sketches: Sketches, keys: Keys, others: Sketches, threshold: float) -> Matches:
    """Find for each row of `others` the row of the (small) first set that it is a near duplicate of.

    Args:
        sketches: of the first set, for example the frozen evaluation rows; indexed once a call.
        keys: (rows of the first set,) as for find_clusters.
        others: the rows in question, a chunk at a time.
        threshold: Jaccard similarity of the shingles, in (0, 1]; the one both were sketched for.

    Raises:
        ValueError: as find_clusters.
    """
    _check(sketches, keys, threshold)
    _check(others, None, threshold)
    least = accepted_from(threshold)
    best = np.full(others.rows, -1, np.int64)  # rank in the first set
    values = np.zeros(others.rows, np.float32)
    by_key = np.argsort(keys, kind="stable")
    for number in range(sketches.bands):
        packed = _pack(sketches.band(number)[by_key])
        wanted = others.band(number).astype(np.uint64) << _HALF
        first = np.searchsorted(packed, wanted)
        last = np.searchsorted(packed, wanted | _RANK_BITS, side="right")
        for probe in range(_BUCKET_ROUNDS):
            rows = np.flatnonzero(first + probe < last)
            ranks = (packed[first[rows] + probe] & _RANK_BITS).astype(np.int64)
            for start in range(0, len(rows), _BLOCK_PAIRS):
                here, rank = rows[start : start + _BLOCK_PAIRS], ranks[start : start + _BLOCK_PAIRS]
                estimate = similarity(others.signatures_of(here), sketches.signatures_of(by_key[rank]))
                equal = (estimate == values[here]) & (rank < best[here])
                better = (estimate >= least) & ((estimate > values[here]) | equal)
                best[here[better]], values[here[better]] = rank[better], estimate[better]
    return Matches(np.where(best >= 0, by_key[best] if len(by_key) else -1, -1), values)


def _check(sketches: Sketches, keys: Keys | None, threshold: float) -> None:
    if keys is not None and len(keys) != sketches.rows:
        raise ValueError(f"{sketches.rows} sketches and {len(keys)} keys")
    if sketches.bands != band_count(threshold):
        raise ValueError(f"sketches of {sketches.bands} bands; the threshold {threshold} takes {band_count(threshold)}")


@dataclass(frozen=True, slots=True)
class _Comparison:
    sketches: Sketches
    by_key: Positions
    least: float

    def estimates(self, left: Ranks, right: Ranks) -> F32:
        """Estimate the similarity of pairs of rows, a block at a time."""
        found = np.empty(len(left), np.float32)
        for start in range(0, len(left), _BLOCK_PAIRS):
            here = slice(start, start + _BLOCK_PAIRS)
            found[here] = similarity(
                self.sketches.signatures_of(self.by_key[left[here]]),
                self.sketches.signatures_of(self.by_key[right[here]]),
            )
        return found


def _pack(column: U32) -> npt.NDArray[np.uint64]:
    """Sort rows by hash, then rank: the hash is the upper half of each number."""
    packed = (column.astype(np.uint64) << _HALF) | np.arange(len(column), dtype=np.uint64)
    packed.sort()
    return packed


def _links_of_band(column: U32, root: Ranks, compared: _Comparison) -> tuple[Ranks, Ranks]:
    """Find pairs of ranks in one bucket whose signatures agree and which are not linked yet."""
    packed = _pack(column)
    same = packed[1:] >> _HALF == packed[:-1] >> _HALF
    opens = np.append(True, ~same)[: len(packed)]
    member = ~opens | np.append(same, False)[: len(packed)]
    ranks, opens = (packed[member] & _RANK_BITS).astype(np.int64), opens[member]
    links: list[tuple[Ranks, Ranks]] = []
    for _ in range(_BUCKET_ROUNDS):
        bucket = np.cumsum(opens) - 1
        first = ranks[opens][bucket]
        linked = root[ranks] == root[first]  # the first of a bucket itself, and what an earlier band has linked
        unknown = np.flatnonzero(~linked)
        agree = compared.estimates(ranks[unknown], first[unknown]) >= compared.least
        links.append((ranks[unknown[agree]], first[unknown[agree]]))
        rest = unknown[~agree]
        ranks, bucket = ranks[rest], bucket[rest]
        opens = np.append(True, bucket[1:] != bucket[:-1])[: len(ranks)]
    return np.concatenate([pair[0] for pair in links]), np.concatenate([pair[1] for pair in links])


def _join(root: Ranks, left: Ranks, right: Ranks) -> Ranks:
    """Merge the components of linked ranks; each is named by its smallest rank."""
    if len(left) == 0:
        return root
    nodes, places = np.unique(np.concatenate([root[left], root[right]]), return_inverse=True)
    first, second = places.reshape(2, -1)
    renamed = np.arange(len(root))
    renamed[nodes] = nodes[smallest_linked(len(nodes), first, second)]
    joined: Ranks = renamed[root]
    return joined


def _assign(root: Ranks, compared: _Comparison) -> tuple[Ranks, F32]:
    """Choose in each component which rows stand for which: the smallest for all that are like it, then the next.

    Links over several rows can join what has little in common, so a row is only ever dropped for one it was compared
    with. After some rounds what is left of a component is kept.
    """
    stands_for: Ranks = np.arange(len(root))
    values = np.ones(len(root), np.float32)
    sizes = np.bincount(root, minlength=len(root))
    left = np.flatnonzero(sizes[root] > 1)
    left = left[np.argsort(root[left], kind="stable")]
    for _ in range(_STAR_ROUNDS):
        if len(left) == 0:
            break
        opens = np.append(True, root[left][1:] != root[left][:-1])
        first = left[opens][np.cumsum(opens) - 1]
        rows, first = left[~opens], first[~opens]
        estimate = compared.estimates(rows, first)
        agree = estimate >= compared.least
        stands_for[rows[agree]], values[rows[agree]] = first[agree], estimate[agree]
        left = rows[~agree]
    return stands_for, values
