"""Ratings that were read, a file a sheet and person: whoever sends the same sheet again replaces his own."""

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import digest_of
from tasks.evaluation.ratings.sheet import SheetKey, find_key, write_whole
from tasks.evaluation.ratings.sheet_rating import FilledIn

_LONGEST_NAME_CHARS = 80


@dataclass(frozen=True)
class _KeptRating:
    row: str
    preferred: Literal["candidate", "baseline", "tie"]
    remark: str


@dataclass(frozen=True)
class _KeptFile:
    by: str
    read_at: float
    ratings: tuple[_KeptRating, ...]


_KEPT = TypeAdapter(_KeptFile)


@dataclass(frozen=True)
class Gathered:
    """All that was said of one version against one baseline.

    Attributes:
        ratings: person → row → whose answer is preferred; of a row that a person rated twice, the later.
        remarks: person → row → remark, where there is one.
        identical: rows that both answered alike.
        unrated: rows of sheets that nobody rated.
    """

    ratings: dict[str, dict[str, str]]
    remarks: dict[str, dict[str, str]]
    identical: int
    unrated: int


def checked_person(given: str) -> str:
    """Return a person's name in compatibility characters (NFKC), with single spaces and none around it.

    Raises:
        EvaluationError: it is empty, longer than 80 characters, or holds what does not print.
    """
    name = unicodedata.normalize("NFKC", given).strip()
    if not name or len(name) > _LONGEST_NAME_CHARS or not name.isprintable():
        raise EvaluationError(f"--by is {given!r}; expected a name of 1 to {_LONGEST_NAME_CHARS} characters that print")
    return " ".join(name.split())


def keep_ratings(key: SheetKey, by: str, ratings: Sequence[FilledIn], folder: Path) -> None:
    """Write down what a person said of a sheet."""
    content = {"by": by, "read_at": time.time(), "ratings": [asdict(rating) for rating in ratings]}
    write_whole(folder / key.sheet / f"by-{digest_of(_person(by))[:16]}.json", content)


def _person(by: str) -> str:
    """Return what two spellings of a person's name have in common: "Ann" and "ann" are one."""
    return " ".join(unicodedata.normalize("NFKC", by).casefold().split())


def gather(key: SheetKey, folder: Path) -> Gathered:
    """Return what all people said of all sheets on the same two systems as this one.

    Raises:
        EvaluationError: a file of ratings is damaged.
    """
    said: list[_KeptFile] = []
    asked: set[str] = set()
    identical: set[str] = set()
    for path in sorted(folder.glob("*/key.json")):
        other = find_key(path.parent.name, folder)
        if other is None or _compared(other) != _compared(key):
            continue
        files = [_read(each, other) for each in sorted(path.parent.glob("by-*.json"))]
        said += files
        if files:
            asked |= {row.row for row in other.rows}
            identical |= set(other.identical)
    ratings: dict[str, dict[str, str]] = {}
    remarks: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for file in sorted(said, key=lambda each: each.read_at):
        by = names.setdefault(_person(file.by), file.by)
        ratings.setdefault(by, {}).update({each.row: each.preferred for each in file.ratings})
        remarks.setdefault(by, {}).update({each.row: each.remark for each in file.ratings if each.remark})
    rated = {row for rows in ratings.values() for row in rows}
    present = {by: rows for by, rows in ratings.items() if rows}
    return Gathered(present, remarks, len(identical), len(asked - rated))


def _compared(key: SheetKey) -> tuple[str, int, str, str]:
    return key.model, key.version, key.servable_digest, key.baseline


def _read(path: Path, key: SheetKey) -> _KeptFile:
    try:
        kept = _KEPT.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"{path} is damaged: it holds no person's ratings; read that sheet again") from error
    strange = {each.row for each in kept.ratings} - {row.row for row in key.rows}
    if strange:
        raise EvaluationError(f"{path} is damaged: {min(strange)[:64]!r} is no row of its sheet; read that sheet again")
    return kept
