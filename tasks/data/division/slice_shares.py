"""Shares of slices: which places each slice has among the evaluation rows, and how much of the training rows."""

from typing import TYPE_CHECKING

from tasks.contracts.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def stratified(slices: "NDArray[np.int32]", quota: int) -> "NDArray[np.int64]":
    """Choose `quota` places so that each slice has its share of them, by largest remainder; the first places win.

    Args:
        slices: (n,) slice of each place, in the order of preference. Slices are numbered by name.
        quota: places to choose, at most n.
    """
    import numpy as np

    codes, counts, place = _by_slice(slices)
    exact = counts * (quota / max(1, len(slices)))
    seats = np.floor(exact).astype(np.int64)
    remainder = np.argsort(seats - exact, kind="stable")
    seats[remainder[: quota - int(seats.sum())]] += 1
    return np.flatnonzero(place < seats[codes])


def within_share(slices: "NDArray[np.int32]", share: float, quota: int) -> "NDArray[np.bool_]":
    """Say which places stay so that no slice has more than `share` of those that stay; the first places win.

    Args:
        slices: (n,) slice of each place, in the order of preference.
        share: 0 to 1.
        quota: places that stay at most.

    Raises:
        DataError: there are too few slices.
    """
    import numpy as np

    _, counts, place = _by_slice(slices)
    total = min(quota, len(slices))
    while (fitting := int(np.minimum(counts, int(share * total)).sum())) < total:
        total = fitting  # fewer rows allow each slice fewer
    if total == 0 and len(slices):
        taken = f", of which data.train_rows takes {quota}" if quota < len(counts) else ""
        raise DataError(
            f"data.max_slice_share is {share:g} and the rows have {len(counts)} slices{taken}; expected at least "
            f"{_least_share(min(quota, len(counts))):g}, or no row could stay"
        )
    stays: NDArray[np.bool_] = place < int(share * total)
    return stays


def _least_share(rows: int) -> float:
    """Return the least share that so many rows of different slices keep, in about three digits.

    No other number of rows keeps a smaller one: m rows a slice take m times as many, or more where slices run out.
    """
    unit: int = 10 ** (len(str(rows)) + 2)
    units = -(-unit // rows)
    return units / unit


def _by_slice(slices: "NDArray[np.int32]") -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
    """Return the slice of each place as a number from 0, the places of each slice, and each place's number in it."""
    import numpy as np

    _, codes, counts = np.unique(slices, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    place = np.empty(len(slices), np.int64)
    place[order] = np.arange(len(slices)) - np.repeat(np.cumsum(counts) - counts, counts)
    return codes, counts, place
