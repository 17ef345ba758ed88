"""How much of a source may be set aside before the run stops."""

from collections.abc import Sequence

from tasks.contracts.errors import DataError
from tasks.data.rows import Rejection

NAMED_PIECES = 3
"""So many rejections a caller keeps, to name them."""


def check_malformed_share(
    named: str, config_key: str, pieces: int, malformed: int, first: Sequence[Rejection], max_malformed_share: float
) -> None:
    """Pass if few enough pieces of a source are malformed.

    Args:
        named: what the configuration names: path, query or address.
        config_key: where the source stands in the configuration.
        pieces: records, and what was set aside instead of one (a file that cannot be read at all is one piece).
        malformed: how many of them were set aside.
        first: the first rejections, at least three if there are so many.
        max_malformed_share: `data.max_malformed_share`, 0 to 1.

    Raises:
        DataError: more than the allowed share is malformed; names counts and the first three.
    """
    if malformed <= max_malformed_share * pieces:
        return
    shown = "; ".join(f"{bad.source}:{bad.line}: {bad.reason} ({bad.detail})" for bad in first[:NAMED_PIECES])
    raise DataError(
        f"{config_key} names {named!r}, in which {malformed} of {pieces} records are malformed, more than the share of "
        f"{max_malformed_share} that data.max_malformed_share allows; the first: {shown}"
    )
