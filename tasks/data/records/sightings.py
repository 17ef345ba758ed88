"""Where the data versions have a record, and why it is there: by the beginning of its id, or by text in it."""

import shlex
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import Entry, Store
from tasks.data.records.pieces import piece_id
from tasks.data.rows import Row, is_beginning_of_id
from tasks.data.versions import SPLITS

_PARENT = "meta.parent"
_PASSAGE_CHARS = 120
_NAMED = 5
EXCERPT_START = b'"excerpt":"'
"""What stands in the line of every piece that has an excerpt."""
REJECTED = "rejected"


class NotOneRecord(DataError):
    """What was asked for is none of the records, or several; `ids` has theirs."""

    def __init__(self, message: str, ids: Set[str]) -> None:
        super().__init__(message)
        self.ids = frozenset(ids)


@dataclass(frozen=True)
class Sighting:
    """Where a version has a record.

    Attributes:
        version: digest of the version, or of the row set.
        where: train, eval or rejected; read where `version` is that of a row set (`as_read`).
        reason: why it is rejected; empty if it is not.
        detail: the same, exactly.
        record_id: of the row; of a piece that never became a row, the digest of its excerpt.
        row: the row; None where its text is not kept, or it never became one.
        excerpt: of a piece that never became a row.
        source: where it came from.
        found_in: what was matched: id, detail, excerpt, messages, rejected (the answer not chosen) or meta.NAME; read
            if only its spelling before the cleaning steps has the text.
        passage: what stands there around the text, unless it is an id.
        lines: of a piece that never became a row, the lines of its source on which it stands.
    """

    version: str
    where: str
    reason: str
    detail: str
    record_id: str
    row: Row | None
    excerpt: str
    source: str
    found_in: str
    passage: str
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        text: as it was asked for.
        needle: how JSON spells it.
        is_id: it may be the beginning of an id.
    """

    text: str
    needle: bytes
    is_id: bool

    @classmethod
    def of(cls, text: str) -> "Wanted":
        """Return what a person means by a text.

        Raises:
            DataError: it is empty, or no UTF-8.
        """
        if not text.isprintable() and any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise DataError("the record to look for is no UTF-8; expected the beginning of its id, or text in UTF-8")
        if not text.strip():
            raise DataError(
                "the record to look for is empty; expected the beginning of its id, or text that stands in it"
            )
        return cls(text, orjson.dumps(text)[1:-1], is_beginning_of_id(text))


def find_record(versions: list[Entry], wanted: str) -> list[Sighting]:
    """Return where the versions have a record.

    Args:
        versions: where to look.
        wanted: the beginning of its id (at least 8 hex digits), or text that stands in it.

    Raises:
        DataError: `wanted` is empty.
    """
    sought = Wanted.of(wanted)
    return [
        seen
        for version in versions
        for where in (*SPLITS, REJECTED)
        for seen in sightings_in(version.path / f"{where}.jsonl", version.digest, where, sought)
    ]


def sightings_in(path: Path, version: str, where: str, wanted: Wanted) -> Iterator[Sighting]:
    """Yield the records of one file that are meant; `version` and `where` say what the file is."""
    with path.open("rb") as file:
        for line in file:
            if wanted.needle in line or (wanted.is_id and EXCERPT_START in line):
                sighting = _sighting(version, where, orjson.loads(line), wanted.text, wanted.is_id)
                if sighting:
                    yield sighting


def with_lines(sightings: list[Sighting], versions: list[Entry], store: Store) -> list[Sighting]:
    """Return the sightings with the lines of pieces that never became rows.

    A version does not say them, for the order of a file's lines changes no version; the rows as they were read do.
    Pieces that got pseudonyms, or lost their excerpt, are not recognised there.

    Args:
        sightings: in these versions.
        versions: data versions.
        store: where the rows as they were read are kept.
    """
    pieces = {seen.version for seen in sightings if seen.excerpt}
    lines: dict[tuple[str, str, str], list[int]] = {}
    for version in versions:
        if version.digest not in pieces:
            continue
        row_sets = version.inputs["rows"], version.inputs["evaluation_rows"]
        wanted = {(seen.source, seen.excerpt) for seen in sightings if seen.version == version.digest and seen.excerpt}
        for row_set in (entry for entry in store.entries("rows") if entry.digest in row_sets):
            for record in read_jsonl(row_set.path / "rejected.jsonl"):
                if (record["source"], record["excerpt"]) in wanted:
                    key = version.digest, record["source"], record["excerpt"]
                    lines.setdefault(key, []).append(record["line"])
    return [
        replace(seen, lines=tuple(sorted(set(lines.get((seen.version, seen.source, seen.excerpt), ())))))
        for seen in sightings
    ]


def the_record(sightings: list[Sighting], wanted: str) -> Row | str:
    """Return the one row that the sightings show, or the excerpt of the one piece that never became a row.

    Raises:
        NotOneRecord: they show none, or several.
    """
    rows = {seen.row["id"]: seen.row for seen in sightings if seen.row}
    excerpts = {piece_id(seen.excerpt): seen.excerpt for seen in sightings if seen.excerpt}
    check_one(rows.keys(), excerpts.keys(), wanted)
    return next(iter(rows.values())) if rows else excerpts.popitem()[1]


def check_one(rows: Set[str], pieces: Set[str], wanted: str) -> None:
    """Refuse anything but one record.

    Args:
        rows: ids of the rows that were found.
        pieces: ids of the pieces that never became rows.
        wanted: what was looked for.

    Raises:
        NotOneRecord: there is none, or there are several.
    """
    if len(rows) + len(pieces) == 1:
        return
    found = " and ".join(
        f"{count} {kind}{'' if count == 1 else 's'}"
        for count, kind in ((len(rows), "row"), (len(pieces), "rejected piece"))
        if count
    )
    ids = sorted(rows) + sorted(pieces)
    shown = ", ".join(each[:12] for each in ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    said = f"{found} match ({shown})" if ids else "no data version has such a row, nor has one that was read"
    hint = f"; llm-retrain data why {shlex.quote(wanted)} shows them" if ids else ""
    raise NotOneRecord(f"the record is {wanted!r}: {said}; expected the beginning of one row's id{hint}", {*ids})


def _sighting(version: str, where: str, record: dict[str, Any], wanted: str, is_id: bool) -> Sighting | None:
    """Tell a record that was asked for from one that only mentions another's id."""
    row: Row | None = record if where != "rejected" else record.get("row")
    excerpt: str = record.get("excerpt", "") if where == "rejected" else ""
    reason, detail = (record["reason"], record["detail"]) if where == "rejected" else ("", "")
    record_id = row["id"] if row else piece_id(excerpt) if excerpt else ""
    texts: list[tuple[str, str]] = [] if row is not None else [("detail", detail), ("excerpt", excerpt)]
    if row is not None:
        texts += (("messages", message["content"]) for message in row["messages"])
        texts += [("rejected", row["rejected"])] if "rejected" in row else []
        texts += ((name, text) for name, text in leaves_of(row["meta"], "meta") if not (is_id and name == _PARENT))
    if is_id and (record_id or detail).startswith(wanted):
        found_in, text = "id", ""
    else:
        found_in, text = next(((name, text) for name, text in texts if wanted in text), ("", ""))
    if not found_in:
        return None
    passage = _around(text, wanted)
    return Sighting(version, where, reason, detail, record_id, row, excerpt, record["source"], found_in, passage)


def leaves_of(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers in a JSON value, each with where it stands (names joined by dots)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves_of(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves_of(inner, name)
    else:
        yield name, value if isinstance(value, str) else orjson.dumps(value).decode()


def _around(text: str, wanted: str) -> str:
    """Return what stands around a text, with dots where more of it is left out."""
    start = max(0, text.find(wanted) - max(0, _PASSAGE_CHARS - len(wanted)) // 2)
    end = start + _PASSAGE_CHARS
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
