"""Everything in the state directory that says the same as a record: in which spellings, and what holds it.

A row is read in one spelling and stands in data versions in others, one for each line of steps; rows that are equal but
for case and white space count as one. All of them are the record that a person asks to erase.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.store import Entry, Store
from tasks.data.division.split import DUPLICATE
from tasks.data.records.erasure import marks_of
from tasks.data.records.lineage import relatives, spellings_in
from tasks.data.records.pieces import piece_id
from tasks.data.records.sightings import leaves_of
from tasks.data.rows import Row, id_in_line
from tasks.data.versions import SPLITS, data_versions

_OF_ROW = "of row "
_IS_DUPLICATE = orjson.dumps({"reason": DUPLICATE})[1:-1]
_RESULTS = ("predictions", "report", "replay")
"""Kinds of results that hold rows: for evaluation, with the answers to them, or to be replayed."""
_WITH_RECORDS = ("rows", "dataset", *_RESULTS)
_NOT_TEXT = (".npz", ".lineage", ".prompt", ".conversation", ".answer")
"""Files that the data stage needs while it works, without any text."""
_EXCERPT = b'"excerpt":"'


@dataclass
class Traces:
    """What a record is recognised by, and what holds it.

    Attributes:
        marks: ids in every spelling, and digests of folded conversations.
        learned: data versions that have it among the rows for training or evaluation: models have seen these.
        versions: data versions that have its text, `learned` among them.
        row_sets: row sets in the store that have it as it was read.
        results: other results in the store that have it: answers to evaluation rows, pages that show some of them, rows
            to be replayed.
        ratings: directories of rating sheets that ask about it, and of what people said.
        sources: directories of fetched sources that have it.
        unfinished: directories in the store that no run finished, or that are damaged, and that have it.
    """

    marks: set[str]
    learned: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    row_sets: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    ratings: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


def traces_of(record: Row | str, home: Home, store: Store) -> Traces:
    """Follow a record through the state directory.

    Args:
        record: a row as it stands in a data version, or the excerpt of a piece that never became a row.
        home: for what was fetched from sources.
        store: for row sets, data versions and what was made of them.

    Raises:
        DataError: the excerpt is empty, so that it says nothing of the piece.
    """
    return _piece_traces(record, home, store) if isinstance(record, str) else _row_traces(record, home, store)


def _row_traces(row: Row, home: Home, store: Store) -> Traces:
    versions = data_versions(store)
    ids = relatives(store, _equals(versions, row["id"]))
    traces = Traces(marks={*ids, *marks_of(row)})
    spellings = [row]
    for version in versions:
        for where in (*SPLITS, "rejected"):
            found = [each.get("row", each) for each in _rows_with(version.path / f"{where}.jsonl", ids)]
            spellings += found
            _note(traces.versions, version.digest, bool(found))
            _note(traces.learned, version.digest, bool(found) and where != "rejected")
    for row_set in store.entries("rows"):
        found = [each for path in sorted(row_set.path.glob("rows-*.jsonl")) for each in _rows_with(path, ids)]
        spellings += found
        _note(traces.row_sets, row_set.digest, bool(found))
    for kind in _RESULTS:
        for result in store.entries(kind):
            _note(traces.results, result.digest, _names(result.path.glob("*.jsonl"), ids))
    for page in store.entries("review"):
        shows = _names(page.path.glob("*.html"), _shown(ids))
        _note(traces.results, page.digest, shows or page.inputs["report"] in traces.results)
    sheets = sorted(home.ratings.glob("*/"))
    traces.ratings = [str(sheet) for sheet in sheets if _names(sheet.glob("*.json"), ids)]
    traces.marks.update(mark for each in spellings for mark in marks_of(each))
    texts = {frozenset(_text_lines(_contents(each))) for each in spellings}
    traces.sources = _fetched(home, lambda line: any(_says(line, wanted) for wanted in texts))
    traces.unfinished = _unfinished(store, ids, lambda line, known: any(each in line for each in _spelled(known)))
    return traces


def _piece_traces(excerpt: str, home: Home, store: Store) -> Traces:
    if not excerpt:
        raise DataError("the piece has no excerpt by which it could be recognised; remove it from its source")
    ids = relatives(store, [piece_id(excerpt)])
    traces = Traces(marks=ids)
    for entries, holders in ((data_versions(store), traces.versions), (store.entries("rows"), traces.row_sets)):
        for entry in entries:
            records = map(orjson.loads, _lines(entry.path / "rejected.jsonl"))
            _note(
                holders, entry.digest, any(piece_id(each["excerpt"]) in ids for each in records if each.get("excerpt"))
            )
    traces.sources = _fetched(home, lambda line: any(piece_id(each) in ids for each in _excerpts(line)))
    traces.unfinished = _unfinished(store, ids, _has_excerpt)
    return traces


def _equals(versions: Iterable[Entry], row_id: str) -> set[str]:
    """Return the ids of the rows that a version holds to be equal to this one but for case and white space."""
    equal, before = {row_id}, 0
    paths = [version.path / "rejected.jsonl" for version in versions]
    while len(equal) > before:  # the row that stays in one version may be the one that goes in another
        before = len(equal)
        for path in paths:
            for line in _lines(path):
                if _IS_DUPLICATE not in line:
                    continue
                record = orjson.loads(line)
                pair = {record["row"]["id"], record["detail"].removeprefix(_OF_ROW)}
                if not equal.isdisjoint(pair):
                    equal |= pair
    return equal


def _rows_with(path: Path, ids: set[str]) -> Iterator[dict[str, Any]]:
    for line in _lines(path):
        if id_in_line(line) in ids:
            yield orjson.loads(line)


def _names(paths: Iterable[Path], ids: set[str]) -> bool:
    """Say whether a line of the files has one of the ids."""
    spelled = _spelled(ids)
    return any(each in line for path in paths for line in _lines(path) for each in spelled)


def _shown(ids: set[str]) -> set[str]:
    """Return how a review page names rows."""
    return {each[:12] for each in ids}


def _fetched(home: Home, holds: Callable[[bytes], bool]) -> list[str]:
    """Return the directories of fetched sources with a line that holds the record."""
    folders = sorted({path.parent for path in home.sources.glob("*/chunk-*.jsonl")})
    return [
        str(folder)
        for folder in folders
        if any(holds(line) for path in sorted(folder.glob("chunk-*.jsonl")) for line in _lines(path))
    ]


def _unfinished(store: Store, ids: set[str], holds: Callable[[bytes, set[str]], bool]) -> list[str]:
    """Return the directories without a finished entry that have a line with one of these ids or what became of them."""
    of_kinds = [(each.parent.name, each) for each in store.unfinished()]
    of_kinds += [(each.name.split("-")[0], each) for each in store.set_aside()]
    folders = [folder for kind, folder in of_kinds if kind in _WITH_RECORDS]
    pages = [folder for kind, folder in of_kinds if kind == "review"]
    found = [str(folder) for folder in pages if _names(folder.rglob("*.html"), _shown(ids))]
    for folder in folders:
        known = spellings_in(folder, ids)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in _NOT_TEXT)
        if any(holds(line, known) for path in paths for line in _lines(path)):
            found.append(str(folder))
    return found


def _has_excerpt(line: bytes, ids: set[str]) -> bool:
    """Tell whether a line has the excerpt of a piece with one of these ids; the line may have broken off."""
    start = line.find(_EXCERPT)
    if start < 0:
        return False
    try:
        return piece_id(orjson.loads(line)["excerpt"]) in ids
    except orjson.JSONDecodeError:
        return True  # what is torn may be anybody's, and the whole directory may go


def _says(line: bytes, wanted: frozenset[str]) -> bool:
    """Tell whether a fetched record has every line of a row's texts; a text of the row may be several fields of it."""
    if not all(orjson.dumps(text)[1:-1] in line for text in wanted):
        return False
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return wanted <= set(_text_lines(text for _, text in leaves_of(record)))


def _contents(row: Row) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] != "system"]


def _text_lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from filter(None, map(str.strip, text.splitlines()))


def _excerpts(line: bytes) -> list[str]:
    """Return the excerpts that a piece with this line could have."""
    from tasks.data.sources.opening import excerpt_of_record
    from tasks.data.sources.shard import excerpt_of

    found = [excerpt_of(line)]
    try:
        found.append(excerpt_of_record(orjson.loads(line)))
    except orjson.JSONDecodeError:
        return found
    return found


def _spelled(ids: set[str]) -> list[bytes]:
    return [each.encode() for each in ids]


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _note(holders: list[str], digest: str, has_it: bool) -> None:
    if has_it and digest not in holders:
        holders.append(digest)
