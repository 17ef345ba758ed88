"""A sheet as CSV for spreadsheets, and what people filled in.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, also one from a model, and short ones for
numbers and dates. Such cells get an apostrophe in front (OWASP, CSV Injection), which is taken off when they are read.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tasks.contracts.errors import EvaluationError
from tasks.evaluation.ratings.sheet import TEXTS, SheetKey, digest_of_text
from tasks.evaluation.ratings.sheet_rating import FilledIn, rating_of

COLUMNS = ("sheet", "row", *TEXTS, "preference", "remark")
_SHORT_CHARS = 32
_MOST_BYTES = 64 * 2**20


def csv_sheet(key: SheetKey, texts: Sequence[dict[str, str]]) -> bytes:
    """Return the file: UTF-8 with the mark that spreadsheets know it by; "preference" and "remark" are empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, restval="", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for number, row in enumerate(texts, start=1):
        writer.writerow({"sheet": key.sheet, "row": number, **{name: guarded(text) for name, text in row.items()}})
    return out.getvalue().encode("utf-8-sig")


def guarded(text: str) -> str:
    """Return a text that a spreadsheet shows as it is: no formula, number or date."""
    return f"'{text}" if not text[:1].isalpha() or len(text) <= _SHORT_CHARS else text


def read_csv_sheet(path: Path, find_key: Callable[[str], SheetKey | None]) -> tuple[SheetKey, list[FilledIn]]:
    """Read a sheet back; rows without a preference are left out.

    Raises:
        EvaluationError: it is no sheet that was exported here, a text in it was changed, or a preference is none; names
            line and column.
    """
    key: SheetKey | None = None
    found: dict[int, FilledIn] = {}
    seen: set[int] = set()
    for line, cells in _lines(path):

        def wrong(column: str, expected: str, line: int = line, cells: dict[str, str] = cells) -> EvaluationError:
            return EvaluationError(
                f"{path.name}, line {line}, column {column!r} is {cells[column][:60]!r}; expected {expected}"
            )

        known = find_key(cells["sheet"].strip())
        if known is None or (key is not None and known.sheet != key.sheet):
            raise wrong("sheet", "the id of one sheet that llm-retrain ratings export made in this state directory")
        key = known
        text = cells["row"].strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
        if not 1 <= number <= len(key.rows) or number in seen:
            raise wrong("row", f"a number from 1 to {len(key.rows)}, each once")
        seen.add(number)
        for name, digest in zip(TEXTS, key.rows[number - 1].texts, strict=True):
            if digest not in (digest_of_text(cells[name]), digest_of_text(cells[name].removeprefix("'"))):
                raise wrong(name, f"the text of row {number} as it was exported")
        rating = rating_of(key, number, cells["preference"], cells["remark"])
        if rating is None:
            raise wrong("preference", "A, B, tie or nothing")
        if rating.preferred:
            found[number] = rating
    if key is None:
        raise EvaluationError(f"{path.name} holds no row; expected a sheet that llm-retrain ratings export made")
    return key, list(found.values())


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line that a row begins at, and its cells by column; rows without any text are left out."""
    text = read_text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    begins = 1
    try:
        for cells in reader:
            if not names:
                names = [name.strip() for name in cells]
                missing = [name for name in COLUMNS if names.count(name) != 1]
                if missing:
                    raise EvaluationError(
                        f"{path.name}, line 1 has no column {missing[0]!r}; expected {', '.join(COLUMNS)}"
                    )
            elif any(cell.strip() for cell in cells):
                padded = [*cells, *[""] * len(names)]
                yield begins, {name: padded[names.index(name)] for name in COLUMNS}
            begins = reader.line_num + 1
    except csv.Error as error:
        raise EvaluationError(f"{path.name}, line {begins} is no CSV: {error}") from error


def read_text(path: Path) -> str:
    """Read a file that people send back.

    Raises:
        EvaluationError: it cannot be read, is larger than 64 MB, or is not UTF-8.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise EvaluationError(f"{path} has more than {_MOST_BYTES // 2**20} MB; expected a sheet")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}; expected a filled-in sheet") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not UTF-8; save it as CSV UTF-8") from error
