"""The evaluation rows of an earlier data version, as today's cleaning line would word them.

They are evaluated as they stand. The record that such a row once came from passes today's line, which may word it
otherwise: another term map, another width of letters. So that it is recognised, the frozen rows pass the line too. What
comes out is a shadow: it is compared with the others, and never trained on, evaluated or counted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from tasks.contracts.cleaning_config import (
    BlockedStep,
    CleaningStep,
    LanguageStep,
    LengthStep,
    PersonalStep,
    RepetitionStep,
    ReplaceStep,
)
from tasks.data.division.index import FROZEN, SHADOW, Index
from tasks.data.rows import row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MARK = "frozen_row"


def rewording_steps(steps: tuple[CleaningStep, ...]) -> tuple[CleaningStep, ...]:
    """Return the steps that change words, without those that only drop rows or stop the run.

    What a step would drop today was evaluated before, and its shadow harms nobody; and the step personal with the
    action block looks after what is trained on.
    """
    return tuple(step for step in steps if not _only_drops(step))


def _only_drops(step: CleaningStep) -> bool:
    match step:
        case LengthStep() | LanguageStep() | RepetitionStep() | BlockedStep():
            return True
        case ReplaceStep():
            return step.drop
        case PersonalStep():
            return step.action != "pseudonym"
        case _:
            return False


def write_marked(evaluation: Path, out: Path) -> None:
    """Write the rows of an evaluation set, each with its id where cleaning leaves it alone."""
    with evaluation.open("rb") as lines, out.open("wb") as file:
        for line in lines:
            row = orjson.loads(line)
            file.write(row_line({**row, "meta": {_MARK: row["id"]}}))


def pair_shadows(index: Index) -> "NDArray[np.int64]":
    """Return (shadows, 2) rows of the index: each shadow and its frozen row; what erases that one erases both."""
    import numpy as np

    frozen = {index.id_of(int(row)): int(row) for row in np.flatnonzero(index.origin == FROZEN)}
    shadows = np.flatnonzero(index.origin == SHADOW)
    pairs = [(int(row), frozen[mark]) for row, mark in zip(shadows, _marks(index, shadows), strict=True)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _marks(index: Index, shadows: "NDArray[np.int64]") -> Iterator[str]:
    from tasks.data.lines import LineReader

    places = index.file[shadows], index.offset[shadows], index.length[shadows]
    with LineReader(index.files) as reader:
        for line in reader.lines(*places):
            yield orjson.loads(line)["meta"][_MARK]
