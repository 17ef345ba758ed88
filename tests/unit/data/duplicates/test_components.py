"""Rows joined by links: the same as scipy's connected components, each named by its smallest row."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.data.duplicates.components import smallest_linked


def by_scipy(rows, left, right):
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(rows, rows))
    labels = connected_components(graph, directed=False)[1]
    smallest = np.full(labels.max() + 1, rows)
    np.minimum.at(smallest, labels, np.arange(rows))
    return smallest[labels]


@pytest.mark.parametrize("links", [0, 10, 500, 1_000, 5_000])
def test_random_links_join_what_scipy_joins(links):
    for seed in range(8):
        left, right = np.random.default_rng(seed).integers(0, 1_000, (2, links))
        assert (smallest_linked(1_000, left, right) == by_scipy(1_000, left, right)).all()


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled", "star", "zigzag"])
def test_a_chain_and_a_star_of_any_order_are_one(order):
    rows = 50_000
    name = np.arange(rows)
    if order == "descending":
        name = name[::-1]
    if order == "shuffled":
        name = np.random.default_rng(1).permutation(rows)
    if order == "zigzag":
        name = np.concatenate([np.arange(0, rows, 2), np.arange(1, rows, 2)])
    left, right = (np.full(rows - 1, rows - 1), name[:-1]) if order == "star" else (name[:-1], name[1:])
    assert (smallest_linked(rows, left, right) == 0).all()


def test_rows_without_links_have_themselves():
    nothing = np.zeros(0, np.int64)
    assert smallest_linked(3, nothing, nothing).tolist() == [0, 1, 2]
    assert smallest_linked(0, nothing, nothing).tolist() == []
    assert smallest_linked(3, np.array([1]), np.array([1])).tolist() == [0, 1, 2]
