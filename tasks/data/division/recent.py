"""Which clusters are held out as the recent set, beside an evaluation set that was frozen.

It must rotate as rows come in, and yet nothing may be evaluated that an earlier version trained on. So each prompt has
a number drawn by its content and the seed, and the rows with the smallest numbers are held out. More rows only push the
limit down: what was held out may be trained on later, and what was trained on is not held out later (it is a bottom-k
sample: Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, 2007). This takes three more rules:

- The limit is taken over single prompts and not over clusters, which new rows can join into fewer.
- A cluster is as late as its latest member: it is held out if all its prompts are below the limit, so that a new row
  takes no older one along. Turns of one dialogue count as its first one, or no dialogue would ever be held out.
- However few rows there are, no prompt above a fixed share of all numbers is held out.

A dialogue whose first turn comes after the later ones, rows that leave the sources, another seed and a larger quota can
bring back what was trained on; rows that a champion learned are then left out of comparisons with it, as always.
"""

from typing import TYPE_CHECKING

from tasks.contracts.config import DataSection
from tasks.data.division.index import FROZEN, SOURCES, Index, drawn
from tasks.data.division.turns import equal_groups

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ANOTHER_DRAW = 0x5EED5E75
"""The split has drawn by the seed itself: of what it left, small numbers are mostly rows that are like others."""


def choose_recent(
    index: Index,
    cluster: "NDArray[np.int64]",
    is_first: "NDArray[np.bool_]",
    data: DataSection,
    percent: int,
) -> "NDArray[np.int64]":
    """Return the clusters to hold out, at most `data.recent_eval_rows`.

    Args:
        index: the rows.
        cluster: (rows,) the cluster of each row, or of the one that stands for it.
        is_first: (rows,) whether a row opens its dialogue.
        data: how many are held out, and the seed of the draw.
        percent: of the numbers that can be drawn, those that are held out at most.
    """
    import numpy as np

    is_frozen = index.origin >= FROZEN  # what the frozen version evaluates and trained on
    firsts = np.flatnonzero((index.origin == SOURCES) & is_first)
    number = drawn(index.prompt[firsts], data.seed ^ _ANOTHER_DRAW)
    group = equal_groups(np.concatenate([index.prompt[firsts], index.prompt[is_frozen]]))
    is_new = ~np.isin(group[: len(firsts)], group[len(firsts) :])
    numbers = np.unique(number[is_new])[: data.recent_eval_rows]
    held_out = numbers[numbers < np.uint64((percent << 64) // 100)]
    if not len(held_out):
        return np.zeros(0, np.int64)
    clusters = int(cluster.max()) + 1
    latest = np.zeros(clusters, np.uint64)
    np.maximum.at(latest, cluster[firsts], number)
    is_open = np.zeros(clusters, bool)
    is_open[cluster[firsts]] = True
    is_open[cluster[is_frozen]] = False
    return np.flatnonzero(is_open & (latest <= held_out[-1]))


def opens_dialogue(
    index: Index, stands_for: "NDArray[np.int64]", links: "tuple[NDArray[np.int64], NDArray[np.int64]]"
) -> "NDArray[np.bool_]":
    """Return (rows,) whether no row of the same dialogue has fewer turns.

    Args:
        index: the rows and their turns.
        stands_for: (rows,) the row that is left of each row and its duplicates.
        links: two arrays of rows that are turns of one dialogue.
    """
    import numpy as np

    from tasks.data.duplicates.components import smallest_linked

    turns = np.zeros(len(index), np.int64)
    if index.turns is not None:
        turns += np.bincount(index.turns.begins_row, minlength=len(index))
    dialogue = smallest_linked(len(index), *links)[stands_for]
    fewest = turns.copy()
    np.minimum.at(fewest, dialogue, turns)
    is_first: NDArray[np.bool_] = turns == fewest[dialogue]
    return is_first
