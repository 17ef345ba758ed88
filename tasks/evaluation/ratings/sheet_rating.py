"""What a person says of one row of a sheet."""

from dataclasses import dataclass
from typing import Literal

from tasks.evaluation.ratings.sheet import SheetKey

Preferred = Literal["candidate", "baseline", "tie", ""]
_LONGEST_REMARK_CHARS = 4_000


@dataclass(frozen=True)
class FilledIn:
    """A row's rating.

    Attributes:
        row: the evaluation row's id.
        preferred: whose answer; empty: not rated.
        remark: what was said of it, at most 4,000 characters.
    """

    row: str
    preferred: Preferred
    remark: str


def rating_of(key: SheetKey, number: int, preference: str, remark: str) -> FilledIn | None:
    """Translate A or B into whose answer that is; None if it is no preference.

    Args:
        key: of the sheet.
        number: of the row, from 1.
        preference: "A", "B", "tie" or nothing, in any case.
        remark: any text.
    """
    row, place = key.rows[number - 1], preference.strip().casefold()
    preferred: Preferred
    if place in ("", "tie"):
        preferred = "tie" if place else ""
    elif place in ("a", "b"):
        preferred = "candidate" if (place == "a") == (row.first == "candidate") else "baseline"
    else:
        return None
    encodable = remark.encode(errors="replace").decode()  # a saved page can hold half a character, which UTF-8 cannot
    return FilledIn(row.row, preferred, encodable.strip()[:_LONGEST_REMARK_CHARS])
