"""Records as they were read, for what no data version shows: a step gave it pseudonyms or dropped it without its text.

A person is looked for by what they would name, which after the step `personal` stands in the row sets alone. What is
found is told by ids and by what the versions made of it; the text that was read is not shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.contracts.store import Store
from tasks.data.records.lineage import relatives
from tasks.data.records.pieces import piece_id
from tasks.data.records.sightings import (
    EXCERPT_START,
    REJECTED,
    Sighting,
    Wanted,
    check_one,
    find_record,
    sightings_in,
    the_record,
)
from tasks.data.rows import Row, id_in_line
from tasks.data.versions import SPLITS, data_versions

READ = "read"
"""Where a row set has a record, and how one was found that a version has in another spelling."""


@dataclass(frozen=True)
class _Hit:
    """A record of a row set: its id, the digest of the row set, and the source it came from."""

    record_id: str
    row_set: str
    source: str


def find(store: Store, wanted: str) -> list[Sighting]:
    """Return where the data versions have a record; if none of them shows it, also where it is as it was read.

    Args:
        store: with data versions and row sets.
        wanted: the beginning of its id (at least 8 hex digits), or text that stands in it.

    Raises:
        DataError: `wanted` is empty.
    """
    shown = find_record(data_versions(store), wanted)
    if _tell_a_record(shown):
        return shown
    return shown + _sightings(store, [hit for hit, _ in _hits(store, wanted)])


def find_one(store: Store, wanted: str) -> tuple[Row | str, list[Sighting]]:
    """Return the one record that is meant, a row or the excerpt of a piece, and where it is.

    Args:
        store: with data versions and row sets.
        wanted: the beginning of its id (at least 8 hex digits), or text that stands in it.

    Raises:
        NotOneRecord: there is none, or there are several.
        DataError: `wanted` is empty.
    """
    shown = find_record(data_versions(store), wanted)
    if _tell_a_record(shown):
        return the_record(shown, wanted), shown
    hits: list[_Hit] = []
    records: dict[str, Row | str] = {}
    kinds: dict[str, bool] = {}
    for hit, record in _hits(store, wanted):
        hits.append(hit)
        kinds[hit.record_id] = isinstance(record, dict)
        if not records:  # of several none is taken, so that one is all that has to be kept
            records[hit.record_id] = record
    rows = {record_id for record_id, is_row in kinds.items() if is_row}
    check_one(rows, kinds.keys() - rows, wanted)
    return records.popitem()[1], shown + _sightings(store, hits)


def _tell_a_record(sightings: list[Sighting]) -> bool:
    return any(seen.row or seen.excerpt for seen in sightings)


def _hits(store: Store, wanted: str) -> Iterator[tuple[_Hit, Row | str]]:
    """Yield what the row sets have of it, with the row or the excerpt."""
    sought = Wanted.of(wanted)
    for row_set in store.entries("rows"):
        for path in (*sorted(row_set.path.glob("rows-*.jsonl")), row_set.path / f"{REJECTED}.jsonl"):
            where = REJECTED if path.stem == REJECTED else READ
            for seen in sightings_in(path, row_set.digest, where, sought):
                if seen.row or seen.excerpt:
                    yield _Hit(seen.record_id, row_set.digest, seen.source), seen.row or seen.excerpt


def _sightings(store: Store, hits: list[_Hit]) -> list[Sighting]:
    """Return where row sets and data versions have what was found, by ids."""
    if not hits:
        return []
    found = [
        Sighting(hit.row_set, READ, "", "", hit.record_id, None, "", hit.source, READ, "")
        for hit in dict.fromkeys(hits)
    ]
    ids = relatives(store, {hit.record_id for hit in hits})
    for version in data_versions(store):
        for where in (*SPLITS, REJECTED):
            with (version.path / f"{where}.jsonl").open("rb") as file:
                for line in file:
                    found += _sighting_by_id(version.digest, where, line, ids)
    return found


def _sighting_by_id(version: str, where: str, line: bytes, ids: set[str]) -> list[Sighting]:
    row_id = id_in_line(line)
    if row_id not in ids and (row_id or EXCERPT_START not in line):
        return []
    record: dict[str, Any] = orjson.loads(line)
    row, excerpt = (record.get("row"), record.get("excerpt", "")) if where == REJECTED else (record, "")
    record_id = row["id"] if row else piece_id(excerpt)
    if record_id not in ids:
        return []
    reason, detail = (record["reason"], record["detail"]) if where == REJECTED else ("", "")
    return [Sighting(version, where, reason, detail, record_id, row, excerpt, record["source"], READ, "")]
