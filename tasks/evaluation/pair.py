"""Two models' answers to the same rows, compared by the gate's statistics; no verdict follows."""

from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.artifacts import Difference, Interval, Predictions
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.evaluation.scoring import score_systems
from tasks.evaluation.side_by_side import read_side_by_side
from tasks.evaluation.significance import holm


@dataclass(frozen=True)
class Pair:
    """What two models' answers to the same rows say.

    Attributes:
        examples: rows that were compared.
        left_out: rows that were not, because one of the models was trained on them.
        first: metric → score of the first on these rows.
        second: likewise of the second.
        differences: metric → second minus first, with its paired interval and one-sided p-values.
        p_values: metric → p-value of any difference, whichever way, corrected over all of them (Holm).
    """

    examples: int
    left_out: int
    first: dict[str, Interval]
    second: dict[str, Interval]
    differences: dict[str, Difference]
    p_values: dict[str, float]


def compare_answers(
    first: Predictions, second: Predictions, evaluation: EvaluationSection, learned: tuple[Path, ...] = ()
) -> Pair:
    """Score both on the rows that they both answered.

    Args:
        first: answers of the one, which the other is compared with.
        second: answers of the other.
        evaluation: metrics, and how intervals and p-values are made.
        learned: files of rows that either was trained on; rows with a prompt in them are left out.

    Raises:
        EvaluationError: they did not answer the same rows in the same order, a file is malformed, or they were trained
            on all of them.
    """
    rows = read_side_by_side({"base": first, "candidate": second}, *learned)
    scored = score_systems(rows, evaluation)
    differences = scored.differences["base"]
    either_way = {name: min(1.0, 2 * min(each.p_better, each.p_worse)) for name, each in differences.items()}
    return Pair(
        examples=len(rows.ids),
        left_out=second.rows - len(rows.ids),
        first=scored.scores["base"],
        second=scored.scores["candidate"],
        differences=differences,
        p_values=holm(either_way),
    )
