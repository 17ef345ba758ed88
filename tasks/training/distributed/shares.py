"""Which rows of a step each process takes."""

from collections.abc import Sequence

from tasks.training.distributed.group import Group


def shares_of(rows: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Divide rows among processes so that the tokens of each are about as many.

    The longest rows are given out first, each to the process with the fewest tokens so far (Graham, 1969: at most 4/3
    of the best division). Every process computes the same division. With one process it is the rows as they are.
    """
    if size == 1:
        return [list(rows)]
    shares: list[list[int]] = [[] for _ in range(size)]
    tokens = [0] * size
    for row in sorted(rows, key=lambda each: (-lengths[each], each)):
        chosen = min(range(size), key=lambda rank: (tokens[rank], rank))
        shares[chosen].append(row)
        tokens[chosen] += lengths[row]
    return shares


def passes(parts: Sequence[list[list[int]]], lengths: Sequence[int], group: Group) -> list[tuple[list[int], float]]:
    """Return the parts that this process passes through the model, and what their loss is multiplied by: 1 or 0.

    Sharded processes call the model equally often, so those with fewer parts repeat the shortest row for nothing.

    Args:
        parts: the parts of a step by process.
        lengths: tokens of each row.
        group: says which process this is.
    """
    own = [(part, 1.0) for part in parts[group.rank]]
    if not group.sharded:
        return own
    shortest = min((row for share in parts for part in share for row in part), key=lambda row: (lengths[row], row))
    return own + [([shortest], 0.0)] * (max(map(len, parts)) - len(own))
