"""Which rows are trained on, which are evaluated, and why the others are neither: decided on the index alone.

No evaluation row has a twin in training. Twins are rows with the same prompt but for case and white space, whatever
they answer, rows whose prompts or conversations are near duplicates, and turns of one dialogue: all of them are one
cluster, on one side of the split. A frozen row's cluster is also that of its shadow (frozen.py).

Everything is decided by hashes of content and the seed: neither the order in which rows were read nor the number of
processes changes the result.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.data.division.index import EVALUATION, FROZEN, SOURCES, Index, drawn
from tasks.data.division.recent import choose_recent, opens_dialogue
from tasks.data.division.slice_shares import stratified, within_share
from tasks.data.division.turns import dialogue_links, equal_groups

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DUPLICATE = "exact duplicate"
NEAR_DUPLICATE = "near duplicate"
TWIN = "twin of an evaluation row"
NEAR_TWIN = "near twin of an evaluation row"
UNBALANCED = "slice over its share"
NOT_SELECTED = "not selected"
KEPT = ""

REASONS = (KEPT, DUPLICATE, NEAR_DUPLICATE, TWIN, NEAR_TWIN, UNBALANCED, NOT_SELECTED)

HELD_OUT_PERCENT = 30
"""Clusters held out at most: a quota for large files would leave a small one with nothing to train on."""


@dataclass(frozen=True)
class Linked:
    """Near duplicates among some rows of an index.

    Attributes:
        to: (rows,) the row that each row is a near duplicate of; the row itself if it is one of none.
        similarity: (rows,) estimated Jaccard similarity of the two; 1 for the row itself.
    """

    to: "NDArray[np.int64]"
    similarity: "NDArray[np.float32]"


class FindNear(Protocol):
    """Finds near duplicates among the rows that a mask names."""

    def conversations(self, among: "NDArray[np.bool_]") -> Linked:
        """Return for each row the one that it repeats."""

    def clusters(self, among: "NDArray[np.bool_]") -> "list[NDArray[np.int64]]":
        """Return, for each way in which rows can be alike, (rows,) the row that names each row's cluster."""


@dataclass(frozen=True)
class Division:
    """Where each row of the index goes.

    Attributes:
        train: rows to train on, by id.
        evaluation: rows to evaluate on, by id.
        recent: those of them that are of the recent set.
        reason: (rows,) place in `REASONS` of why a row is in neither; 0 for those that are.
        about: (rows,) the row that the reason speaks of, or -1.
        similarity: (rows,) how alike the two are, where they are near and not equal.
        clusters: clusters of prompts among the rows that are no duplicates.
        largest_cluster: rows of the largest one.
    """

    train: "NDArray[np.int64]"
    evaluation: "NDArray[np.int64]"
    recent: "NDArray[np.int64]"
    reason: "NDArray[np.int8]"
    about: "NDArray[np.int64]"
    similarity: "NDArray[np.float32]"
    clusters: int
    largest_cluster: int


def divide(index: Index, near: FindNear | None, data: DataSection) -> Division:
    """Decide for every row.

    Args:
        index: what is known of each row.
        near: finds near duplicates; None: only equal rows and equal prompts count.
        data: quotas, share and seed.

    Raises:
        DataError: data.max_slice_share cannot be kept.
    """
    return _Divider(index, near, data).run()


class _Divider:
    def __init__(self, index: Index, near: FindNear | None, data: DataSection) -> None:
        import numpy as np

        self.index, self.near, self.data = index, near, data
        rows = len(index)
        self.rank = index.rank
        self.reason = np.zeros(rows, np.int8)
        self.about = np.full(rows, -1, np.int64)
        self.similarity = np.ones(rows, np.float32)
        self.shadows = index.shadows if index.shadows is not None else np.zeros((0, 2), np.int64)

    def run(self) -> Division:
        import numpy as np

        for origin in (SOURCES, EVALUATION):
            self._drop_duplicates(np.flatnonzero(self.index.origin == origin))
        alive = np.flatnonzero(self.reason == 0)
        cluster = self._cluster(alive)
        recent = self._choose_recent(alive, cluster)
        chosen = np.concatenate([self._choose_evaluation(alive, cluster), recent])
        is_chosen = np.zeros(len(self.index), bool)
        is_chosen[chosen] = True
        self._drop_twins(alive, cluster, is_chosen)
        train = self._choose_training(is_chosen)
        return Division(
            train=train[np.argsort(self.rank[train])],
            evaluation=chosen[np.argsort(self.rank[chosen])],
            recent=recent,
            reason=self.reason,
            about=self.about,
            similarity=self.similarity,
            clusters=int((sizes := np.bincount(cluster[self.index.is_counted[alive]])).astype(bool).sum()),
            largest_cluster=int(sizes.max(initial=0)),
        )

    def _reject(self, rows: "NDArray[np.int64]", reason: str, about: "NDArray[np.int64] | int" = -1) -> None:
        self.reason[rows] = REASONS.index(reason)
        self.about[rows] = about

    def _drop_duplicates(self, rows: "NDArray[np.int64]") -> None:
        """Of rows that say the same the one with the smallest id stays."""
        import numpy as np

        if not len(rows):
            return
        first = self._first_of_equals(rows, self.index.conversation)
        again = first != rows
        self._reject(rows[again], DUPLICATE, first[again])
        if self.near is None:
            return
        distinct = np.zeros(len(self.index), bool)
        distinct[rows[~again]] = True
        linked = self.near.conversations(distinct)
        near = np.flatnonzero(linked.to != np.arange(len(self.index)))
        self._reject(near, NEAR_DUPLICATE, linked.to[near])
        self.similarity[near] = linked.similarity[near]

    def _first_of_equals(self, rows: "NDArray[np.int64]", key: "NDArray[np.uint64]") -> "NDArray[np.int64]":
        """Return for each of `rows` the row of smallest rank among those with an equal key (128 bits)."""
        import numpy as np

        if not len(rows):
            return rows
        order = np.lexsort((self.rank[rows], key[rows, 1], key[rows, 0]))
        ordered = rows[order]
        starts = np.ones(len(rows), bool)
        starts[1:] = (key[ordered[1:]] != key[ordered[:-1]]).any(axis=1)
        first = np.empty_like(rows)
        first[order] = ordered[starts][np.cumsum(starts) - 1]
        return first

    def _stands_for(self) -> "NDArray[np.int64]":
        """Return (rows,) the row that is left of each row and its duplicates."""
        import numpy as np

        stands_for = np.where(self.reason == 0, np.arange(len(self.index)), self.about)
        return stands_for[stands_for]  # the first of equal rows may itself be a near duplicate

    def _cluster(self, alive: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return the cluster of each of `alive`, from 0: all that are linked, also by way of another row.

        A row that was dropped as a near duplicate still links: who asks what it asked is alike the one that stands for
        it.
        """
        import numpy as np

        from tasks.data.duplicates.components import smallest_linked

        among = self.reason != REASONS.index(DUPLICATE)
        linked = np.flatnonzero(among)
        names = [self._first_of_equals(linked, self.index.prompt), self._stands_for()[linked]]
        if self.near is not None:
            names += [near[linked] for near in self.near.clusters(among)]
        turn, continued = self.dialogues = dialogue_links(self.index, self._stands_for())
        place_of = np.full(len(self.index), -1)
        place_of[linked] = np.arange(len(linked))
        left = np.concatenate([*[np.arange(len(linked))] * len(names), place_of[turn], place_of[self.shadows[:, 0]]])
        right = place_of[np.concatenate([*names, continued, self.shadows[:, 1]])]
        if min(left.min(initial=0), right.min(initial=0)) < 0:
            raise ValueError("a row is linked to one that was dropped as an exact duplicate")
        root = smallest_linked(len(linked), left, right)[place_of[alive]]
        labels: NDArray[np.int64] = np.unique(root, return_inverse=True)[1]
        return labels

    def _choose_evaluation(self, alive: "NDArray[np.int64]", cluster: "NDArray[np.int64]") -> "NDArray[np.int64]":
        import numpy as np

        origin = self.index.origin[alive]
        frozen, own = alive[origin == FROZEN], alive[origin == EVALUATION]
        if self.data.frozen_evaluation and not len(frozen):
            raise DataError(
                f"data.frozen_evaluation is {self.data.frozen_evaluation!r}, of which no row is left: all were erased; "
                "name another data version, or none"
            )
        if len(frozen):
            kept: NDArray[np.int64] = frozen
            return kept
        if (self.index.origin == EVALUATION).any() or self.data.evaluation_sources:
            ordered = own[np.argsort(drawn(self.index.id_key[own], self.data.seed))]
            self._reject(ordered[self.data.eval_rows :], NOT_SELECTED)
            first: NDArray[np.int64] = ordered[: self.data.eval_rows]
            return first
        heads = self._heads(alive, cluster)
        quota = min(self.data.eval_rows, max(1, len(heads) * HELD_OUT_PERCENT // 100))
        order = heads[np.argsort(drawn(self.index.prompt[heads], self.data.seed))]
        fair: NDArray[np.int64] = order[stratified(self.index.slice[order], quota)]
        return fair

    def _choose_recent(self, alive: "NDArray[np.int64]", cluster: "NDArray[np.int64]") -> "NDArray[np.int64]":
        import numpy as np

        if not self.data.recent_eval_rows:
            return np.zeros(0, np.int64)
        stands_for = self._stands_for()
        cluster_of = np.full(len(self.index), -1)
        cluster_of[alive] = cluster
        is_first = opens_dialogue(self.index, stands_for, self.dialogues)
        chosen = choose_recent(self.index, cluster_of[stands_for], is_first, self.data, HELD_OUT_PERCENT)
        heads = self._heads(alive, cluster)
        found: NDArray[np.int64] = heads[np.isin(cluster_of[heads], chosen)]
        return found

    def _heads(self, alive: "NDArray[np.int64]", cluster: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return the row of smallest rank of each cluster."""
        import numpy as np

        by_cluster = np.lexsort((self.rank[alive], cluster))
        _, starts = np.unique(cluster[by_cluster], return_index=True)
        return alive[by_cluster[starts]]

    def _drop_twins(
        self, alive: "NDArray[np.int64]", cluster: "NDArray[np.int64]", is_chosen: "NDArray[np.bool_]"
    ) -> None:
        """Keep what is alike a row that is evaluated out of training: its whole cluster."""
        import numpy as np

        evaluated = is_chosen[alive]
        head = np.full(int(cluster.max()) + 1 if len(cluster) else 0, -1, np.int64)
        by_rank = np.argsort(-self.rank[alive[evaluated]])
        head[cluster[evaluated][by_rank]] = alive[evaluated][by_rank]  # of several, the smallest rank is written last
        twin = (head[cluster] >= 0) & ~evaluated & (self.index.origin[alive] == SOURCES)
        rows, of = alive[twin], head[cluster[twin]]
        asked = self._asked_by(rows, alive[evaluated])
        same = asked >= 0
        self._reject(rows[same], TWIN, asked[same])
        self._reject(rows[~same], NEAR_TWIN, of[~same])

    def _asked_by(self, rows: "NDArray[np.int64]", evaluated: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return for each of `rows` the first evaluated one that asks the same, itself or by its shadow, or -1."""
        import numpy as np

        asking = np.concatenate([evaluated, self.shadows[:, 0]])
        meant = np.concatenate([evaluated, self.shadows[:, 1]])
        group = equal_groups(self.index.prompt[np.concatenate([rows, asking])])
        asked_by = np.full(len(group), -1, np.int64)
        order = np.argsort(-self.rank[meant], kind="stable")
        asked_by[group[len(rows) :][order]] = meant[order]  # of several, the smallest rank is written last
        return asked_by[group[: len(rows)]]

    def _choose_training(self, is_chosen: "NDArray[np.bool_]") -> "NDArray[np.int64]":
        import numpy as np

        free = np.flatnonzero((self.reason == 0) & (self.index.origin == SOURCES) & ~is_chosen)
        order = free[np.argsort(drawn(self.index.id_key[free], self.data.seed))]
        if self.data.max_slice_share < 1:
            within = within_share(self.index.slice[order], self.data.max_slice_share, self.data.train_rows)
            self._reject(order[~within], UNBALANCED)
            order = order[within]
        self._reject(order[self.data.train_rows :], NOT_SELECTED)
        return order[: self.data.train_rows]
