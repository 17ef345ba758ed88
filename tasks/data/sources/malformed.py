"""How much of a source may be set aside before the run stops, and when that is certain before all of it is read."""

import math
from collections.abc import Sequence
from typing import Any

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import Source, SourceSection
from tasks.data.rows import Rejection
from tasks.data.sources.byte_stream import MAX_RATIO, UNSUSPICIOUS_BYTES
from tasks.data.sources.shard import Shard

NAMED_PIECES = 3
"""So many rejections a caller keeps, to name them."""

_LEAST_JSON_BYTES = len('{"prompt":"a","completion":""}')
"""Of a row: no record of any row format is shorter."""
_LEAST_MAPPED_JSON_BYTES = len('{"a":"b"}')
"""Of a row where `columns` names the fields: one column may be both question and answer."""
_LEAST_CSV_BYTES = len("a\n")


class MalformedShare:
    """Counts of one source while its parts are read.

    A source is refused early only if no rest of it could save it: if the pieces that are malformed are too many even
    should everything unread consist of the shortest rows there are. What would pass at the end is never refused.
    """

    def __init__(self, named: str, config_key: str, max_malformed_share: float, most_rows: dict[int, float]) -> None:
        """Begin to count.

        Args:
            named: what the configuration names: path, query or address.
            config_key: where the source stands in the configuration.
            max_malformed_share: `data.max_malformed_share`, 0 to 1.
            most_rows: number of each part → how many rows it can hold at most.
        """
        self._named, self._config_key, self._share = named, config_key, max_malformed_share
        self._unread = dict(most_rows)
        self._parts: dict[int, dict[str, Any]] = {}
        self._kept = self._malformed = 0
        self.most_malformed = _most_malformed(max_malformed_share, sum(most_rows.values()))
        """With more malformed pieces in any of its parts the source is refused; infinity: that cannot be said."""

    def add(self, number: int, part: dict[str, Any]) -> None:
        """Count a part that was read, `kept`, `rejected`, `first` and `is_whole`.

        Raises:
            DataError: no rest of the source can bring the malformed share down to what is allowed.
        """
        self._parts[number] = part
        self._kept += part["kept"]
        self._malformed += sum(part["rejected"].values())
        del self._unread[number]
        most = _most_malformed(self._share, self._kept + sum(self._unread.values()))
        if not part["is_whole"] or (self._unread and self._malformed > most):
            self._refuse_early()

    def check(self) -> None:
        """Pass if few enough pieces of the whole source are malformed.

        Raises:
            DataError: more than the allowed share is; names counts and the first three.
        """
        pieces = self._kept + self._malformed
        check_malformed_share(self._named, self._config_key, pieces, self._malformed, self._first(), self._share)

    def _refuse_early(self) -> None:
        counts = self._kept + self._malformed, self._malformed
        where = " in the part that was read"
        raise DataError(_sentence(self._named, self._config_key, counts, self._first(), (self._share, where)))

    def _first(self) -> list[Rejection]:
        return [Rejection(**record) for number in sorted(self._parts) for record in self._parts[number]["first"]]


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
    if malformed > max_malformed_share * pieces:
        raise DataError(_sentence(named, config_key, (pieces, malformed), first, (max_malformed_share, "")))


def most_rows(shard: Shard, source: Source, shard_bytes: int) -> float:
    """Return how many rows a piece of a source can become at most; infinity where its bytes do not say.

    Args:
        shard: the piece.
        source: what it is a piece of.
        shard_bytes: its bytes in the file.
    """
    if shard.file_format == "unreadable":
        return 0
    least = _least_row_bytes(shard, source)
    if least is None:
        return math.inf
    if shard.compression != "none":
        shard_bytes = max(UNSUSPICIOUS_BYTES, MAX_RATIO * shard_bytes)  # what unpacks to more is set aside
    return shard_bytes // least + 1


def _least_row_bytes(shard: Shard, source: Source) -> int | None:
    if not isinstance(source, SourceSection):
        return None
    if shard.file_format in ("csv", "tsv"):
        return _LEAST_CSV_BYTES
    if shard.file_format in ("json", "jsonl"):
        return _LEAST_MAPPED_JSON_BYTES if source.columns else _LEAST_JSON_BYTES
    return None  # Parquet repeats a value in no bytes at all


def _most_malformed(share: float, rows: float) -> float:
    """Return how many pieces may be malformed beside so many rows; never less, however floats are rounded."""
    if share in (0, 1):
        return math.inf if share else 0
    return share * rows / (1 - share) * (1 + 1e-9) + 1


def _sentence(
    named: str, config_key: str, counts: tuple[int, int], first: Sequence[Rejection], share: tuple[float, str]
) -> str:
    (pieces, malformed), (allowed, where) = counts, share
    places: dict[str, list[str]] = {}  # cause → where: a cause that comes again is said once
    for bad in first[:NAMED_PIECES]:
        places.setdefault(f"{bad.reason} ({bad.detail})", []).append(f"{bad.source}:{bad.line}")
    shown = "; ".join(f"{', '.join(where)}: {cause}" for cause, where in places.items())
    return (
        f"{config_key} names {named!r}, in which {malformed} of {pieces} records{where} are malformed, more than the "
        f"share of {allowed} that data.max_malformed_share allows; the first: {shown}"
    )
