"""The split on an index alone: duplicates, clusters, quotas, shares, a frozen evaluation set."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.data.division.index import FROZEN, SHADOW, SOURCES, Index
from tasks.data.division.slice_shares import stratified, within_share
from tasks.data.division.split import NEAR_DUPLICATE, NEAR_TWIN, REASONS, TWIN, UNBALANCED, Linked, divide


def index_of(prompts, answers=None, slices=None, origins=None):
    """Build an index of rows by numbers: equal numbers are equal texts."""
    rows = len(prompts)
    answers, slices, origins = answers or list(range(rows)), slices or [0] * rows, origins or [SOURCES] * rows
    key = np.random.default_rng(3).integers(1, 2**63, (200, 2), dtype=np.uint64)
    names = [f"{prompt}/{answer}" for prompt, answer in zip(prompts, answers, strict=True)]
    conversation = np.array([[hash_of(name), 0] for name in names], np.uint64)
    return Index(
        id=np.array([list(hash_of(name).to_bytes(8, "big") + bytes(24)) for name in names], np.uint8),
        tie=np.arange(rows, dtype=np.uint64),
        conversation=conversation,
        prompt=key[np.array(prompts)],
        slice=np.array(slices, np.int32),
        origin=np.array(origins, np.int8),
        file=np.zeros(rows, np.int32),
        offset=np.zeros(rows, np.int64),
        length=np.zeros(rows, np.int32),
        slices=tuple(f"s{code}" for code in range(max(slices) + 1)),
        files=(),
    )


def hash_of(name):
    import hashlib

    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


class Near:
    """Near duplicates as they are told: groups of rows that repeat each other, groups with one cluster."""

    def __init__(self, rows, repeats=(), clusters=()):
        self.rows, self.repeats, self.groups = rows, repeats, clusters

    def conversations(self, among):
        to, similarity = np.arange(self.rows), np.ones(self.rows, np.float32)
        for kept, dropped in self.repeats:
            if among[kept] and among[dropped]:
                to[dropped], similarity[dropped] = kept, 0.9
        return Linked(to, similarity)

    def clusters(self, among):
        names = np.arange(self.rows)
        for group in self.groups:
            members = [row for row in group if among[row]]
            names[members] = min(members)
        return [names]


def reasons(division, reason):
    return np.flatnonzero(division.reason == REASONS.index(reason)).tolist()


def data(**settings):
    return DataSection(**{"train_rows": 1_000, "eval_rows": 1_000, **settings})


def test_a_near_duplicate_goes_and_names_the_row_that_stays():
    division = divide(index_of([0, 1, 2, 3]), Near(4, repeats=[(0, 2)]), data())
    assert reasons(division, NEAR_DUPLICATE) == [2]
    assert (division.about[2], round(float(division.similarity[2]), 2)) == (0, 0.9)


def test_a_cluster_is_on_one_side_of_the_split():
    """Ten clusters of four rows: what is alike an evaluated row is never trained on."""
    clusters = [list(range(start, start + 4)) for start in range(0, 40, 4)]
    division = divide(index_of(list(range(40))), Near(40, clusters=clusters), data(eval_rows=3))
    cluster_of = {row: number for number, rows in enumerate(clusters) for row in rows}
    evaluated = {cluster_of[row] for row in division.evaluation}
    assert len(evaluated) == len(division.evaluation) == 3
    assert not evaluated & {cluster_of[row] for row in division.train}
    assert len(reasons(division, NEAR_TWIN)) == 9
    assert len(division.train) == 28
    assert (division.clusters, division.largest_cluster) == (10, 4)


def test_equal_prompts_are_one_cluster_without_any_near_duplicates():
    division = divide(index_of([0, 0, 1, 1, 2, 2, 3, 3]), None, data(eval_rows=1))
    assert len(division.evaluation) == 1
    [twin] = reasons(division, TWIN)
    assert twin // 2 == int(division.evaluation[0]) // 2
    assert len(division.train) == 6


def test_frozen_rows_are_the_evaluation_set_and_what_is_alike_is_not_trained_on():
    index = index_of([0, 1, 2, 3, 4, 0, 1], origins=[SOURCES] * 5 + [FROZEN] * 2)
    division = divide(index, Near(7, clusters=[(1, 6, 2)]), data(eval_rows=1))
    assert sorted(division.evaluation) == [5, 6]
    assert reasons(division, TWIN) == [0, 1]
    assert reasons(division, NEAR_TWIN) == [2]
    assert sorted(division.train) == [3, 4]


def test_what_asks_as_a_shadow_does_is_a_twin_of_its_frozen_row():
    """Rows 0 to 3 are of the sources; 4 and 5 are frozen, 6 and 7 their shadows."""
    index = index_of([1, 2, 3, 4, 10, 11, 1, 2], origins=[SOURCES] * 4 + [FROZEN] * 2 + [SHADOW] * 2)
    index = replace(index, shadows=np.array([[6, 4], [7, 5]]))
    division = divide(index, Near(8, clusters=[(7, 2), (4, 5)]), data())
    assert sorted(division.evaluation) == [4, 5]
    assert division.train.tolist() == [3]
    assert reasons(division, TWIN) == [0, 1]
    assert division.about[[0, 1]].tolist() == [4, 5], "not the first frozen row of the cluster"
    assert reasons(division, NEAR_TWIN) == [2]
    assert division.about[2] in (4, 5)
    assert (division.reason[4:] == 0).all()
    assert (division.clusters, division.largest_cluster) == (2, 5)


def test_the_held_out_rows_have_each_slice_in_its_share():
    slices = [0] * 60 + [1] * 30 + [2] * 10
    division = divide(index_of(list(range(100)), slices=slices), None, data(eval_rows=20))
    assert np.bincount(np.array(slices)[division.evaluation]).tolist() == [12, 6, 2]


@pytest.mark.parametrize("quota", [0, 1, 7, 10])
def test_stratified_places_are_as_many_as_were_asked_for(quota):
    slices = np.array([2, 0, 1, 1, 2, 0, 0, 1, 2, 2], np.int32)
    chosen = stratified(slices, quota)
    assert len(set(chosen.tolist())) == quota
    assert chosen.tolist() == sorted(chosen.tolist())


def test_a_slice_over_its_share_is_cut_and_counted():
    slices = [0] * 80 + [1] * 15 + [2] * 5
    division = divide(index_of(list(range(100)), slices=slices), None, data(max_slice_share=0.5, eval_rows=1))
    counts = np.bincount(np.array(slices)[division.train], minlength=3)
    assert counts.max() <= 0.5 * counts.sum()
    assert counts.sum() >= 38
    assert len(reasons(division, UNBALANCED)) == 99 - counts.sum() - len(reasons(division, TWIN))


def test_a_share_that_too_few_slices_can_keep_is_one_sentence():
    with pytest.raises(
        DataError, match=r"data\.max_slice_share is 0\.3 and the rows have 2 slices; expected at least 0\.5"
    ):
        within_share(np.array([0, 1, 0, 1], np.int32), 0.3, 100)


@pytest.mark.parametrize("slices", [2, 3, 6, 7, 49, 300])
@pytest.mark.parametrize("quota", [1_000, 3])
def test_the_share_that_the_error_names_leaves_a_row_and_a_smaller_one_leaves_none(slices, quota):
    rows = np.tile(np.arange(slices, dtype=np.int32), 5)
    with pytest.raises(DataError) as refused:
        within_share(rows, 0.001, quota)
    share = float(re.search(r"expected at least ([0-9.]+),", str(refused.value))[1])
    assert ("data.train_rows takes 3" in str(refused.value)) == (quota == 3 < slices)
    kept = rows[within_share(rows, share, quota)][:quota]
    assert len(kept)
    assert np.bincount(kept).max() <= share * len(kept)
    with pytest.raises(DataError):
        within_share(rows, share * 0.99, quota)


def test_neither_order_nor_numbering_of_the_rows_changes_the_division():
    draw = np.random.default_rng(5)
    prompts, answers = draw.integers(0, 60, 150).tolist(), draw.integers(0, 3, 150).tolist()
    expected = None
    for _ in range(4):
        order = draw.permutation(150)
        index = index_of([prompts[row] for row in order], [answers[row] for row in order])
        division = divide(index, None, data(eval_rows=9, train_rows=50))
        found = ([index.id_of(row) for row in division.train], [index.id_of(row) for row in division.evaluation])
        assert expected in (None, found)
        expected = found
    assert len(found[0]) == 50
