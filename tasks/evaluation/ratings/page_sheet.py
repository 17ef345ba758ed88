"""A sheet as one page that loads and sends nothing: buttons, and a file to hand back."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.errors import EvaluationError
from tasks.evaluation.pages import templates_in
from tasks.evaluation.ratings.csv_sheet import read_text
from tasks.evaluation.ratings.sheet import SheetKey
from tasks.evaluation.ratings.sheet_rating import FilledIn, rating_of


def page_sheet(key: SheetKey, texts: Sequence[dict[str, str]]) -> bytes:
    """Return the page; prompts and answers are text in it, never markup."""
    environment = templates_in(Path(__file__).parent)
    return environment.get_template("sheet.html.jinja").render(sheet=key.sheet, rows=list(texts)).encode("utf-8")


def read_saved_page(path: Path, find_key: Callable[[str], SheetKey | None]) -> tuple[SheetKey, list[FilledIn]]:
    """Read what a page saved; rows without a preference are left out.

    Raises:
        EvaluationError: it is no file of a sheet that was exported here, or a preference is none.
    """
    try:
        content = json.loads(read_text(path))
        sheet, lines = str(content["sheet"]), list(content["ratings"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise EvaluationError(
            f"{path.name} is not what a sheet's page saves ({error!r}); expected ratings.json"
        ) from error
    key = find_key(sheet)
    if key is None:
        raise EvaluationError(
            f"{path.name} is of the sheet {sheet[:60]!r}; expected one that llm-retrain ratings export made in this "
            "state directory"
        )
    found: dict[int, FilledIn] = {}
    for place, line in enumerate(lines, start=1):
        number, rating = _rating(key, line)
        if rating is None or number in found:
            raise EvaluationError(
                f"{path.name}, rating {place} is {str(line)[:80]!r}; expected row, a number from 1 to {len(key.rows)}, "
                "each once, preference, A, B, tie or nothing, and remark, a text"
            )
        found[number] = rating
    return key, [rating for rating in found.values() if rating.preferred]


def _rating(key: SheetKey, line: Any) -> tuple[int, FilledIn | None]:
    fields = {"row": int, "preference": str, "remark": str}
    if not isinstance(line, dict) or any(type(line.get(name)) is not kind for name, kind in fields.items()):
        return 0, None
    number: int = line["row"]
    if not 1 <= number <= len(key.rows):
        return 0, None
    return number, rating_of(key, number, line["preference"], line["remark"])
