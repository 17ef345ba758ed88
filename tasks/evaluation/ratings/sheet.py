"""A blind sheet: two answers a row in an order that only the key tells, which stays in the state directory."""

import json
import os
import random
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import digest_of
from tasks.evaluation.review.visible import visible

_LONGEST_CELL_CHARS = 20_000
"""A spreadsheet's cell holds 32,767."""
_ID = re.compile(r"[0-9a-z]{16}")
_LETTERS = "bcdfghjkmnpqrstvwxz"
TEXTS = ("prompt", "answer A", "answer B")

System = Literal["candidate", "baseline"]


@dataclass(frozen=True)
class RatedPair:
    """Two answers to one row, as they are shown: control characters as �, cut at 20,000 characters."""

    row: str
    prompt: str
    candidate: str
    baseline: str


@dataclass(frozen=True)
class SheetRow:
    """A row of a sheet.

    Attributes:
        row: the evaluation row's id.
        first: whose answer is A.
        texts: digest of the prompt, of answer A and of answer B.
    """

    row: str
    first: System
    texts: tuple[str, str, str]


@dataclass(frozen=True)
class SheetKey:
    """What a sheet does not tell.

    Attributes:
        sheet: its id, drawn at random.
        model: the registered model.
        version: the version whose answers are the candidate's.
        servable_digest: of that version.
        baseline: whose answers are the others: "base" or "version 3".
        rows: in the sheet's order, from 1.
        identical: ids of rows that both answered alike, so that nobody is asked.
        seed: what drew rows and orders.
    """

    sheet: str
    model: str
    version: int
    servable_digest: str
    baseline: str
    rows: tuple[SheetRow, ...]
    identical: tuple[str, ...]
    seed: int


_KEY = TypeAdapter(SheetKey)


def shown(row: str, prompt: str, candidate: str, baseline: str) -> RatedPair:
    """Return a pair as people see it."""
    return RatedPair(row, *(visible(text, _LONGEST_CELL_CHARS) for text in (prompt, candidate, baseline)))


def draw_sheet(
    pairs: Sequence[RatedPair], most: int, about: tuple[str, int, str, str]
) -> tuple[SheetKey, list[dict[str, str]]]:
    """Draw rows and the order of the answers in each.

    Args:
        pairs: all that could be asked.
        most: rows to draw at most; those that both answered alike count, and are not asked.
        about: registered model, version, servable digest and baseline.

    Returns:
        The key, and the texts of each row under "prompt", "answer A" and "answer B".

    Raises:
        EvaluationError: both answered all rows alike, or there is none.
    """
    seed = secrets.randbits(64)
    generator = random.Random(seed)  # noqa: S311
    drawn = generator.sample(pairs, min(most, len(pairs)))
    identical = [pair.row for pair in drawn if _same(pair.candidate) == _same(pair.baseline)]
    asked = [pair for pair in drawn if pair.row not in set(identical)]
    if not asked:
        raise EvaluationError(f"both answer all {len(drawn)} rows alike; there is nothing to rate")
    rows, texts = [], []
    for pair in asked:
        first: System = generator.choice(("candidate", "baseline"))
        answers = (pair.candidate, pair.baseline) if first == "candidate" else (pair.baseline, pair.candidate)
        digests = (digest_of_text(pair.prompt), digest_of_text(answers[0]), digest_of_text(answers[1]))
        rows.append(SheetRow(pair.row, first, digests))
        texts.append(dict(zip(TEXTS, (pair.prompt, *answers), strict=True)))
    key = SheetKey(_drawn_id(), *about, tuple(rows), tuple(identical), seed)
    return key, texts


def _drawn_id() -> str:
    """Return 16 consonants, 68 bits: no spreadsheet takes them for a number (12e34), nor for a word or a month."""
    return "".join(secrets.choice(_LETTERS) for _ in range(16))


def digest_of_text(text: str) -> str:
    """Return the digest of a text but for what spreadsheets change: ends of lines, and space around it."""
    return digest_of(_same(text))


def _same(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def keep_key(key: SheetKey, folder: Path) -> None:
    """Write a key into the folder of all sheets."""
    write_whole(folder / key.sheet / "key.json", asdict(key))


def find_key(sheet: str, folder: Path) -> SheetKey | None:
    """Return the key of a sheet, None if it is not one that was exported here.

    Raises:
        EvaluationError: the key is damaged.
    """
    path = folder / sheet / "key.json"
    if not _ID.fullmatch(sheet) or not path.is_file():
        return None
    try:
        return _KEY.validate_json(path.read_bytes())
    except ValidationError as error:
        raise EvaluationError(f"{path} is damaged: it is no key of a sheet; export another one") from error


def write_whole(path: Path, content: object) -> None:
    """Write a JSON file that only its owner reads; it is there whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, working = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(working).replace(path)
    except BaseException:
        Path(working).unlink(missing_ok=True)
        raise
