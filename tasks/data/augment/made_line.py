"""Made rows through the cleaning line and the limits that every row passes."""

from collections import Counter
from pathlib import Path
from typing import Any

from tasks.contracts.cleaning_config import CleaningStep, PersonalStep
from tasks.contracts.config import DataSection
from tasks.data.cleaning.line import build_line
from tasks.data.cleaning.step import REJECTED, Dropped
from tasks.data.records.erasure import ERASED, marks_of
from tasks.data.rows import Row, flaw_of_length

CHANGED_AGAIN = "cleaning changes its parent's text again"


class MadeLine:
    """The cleaning line of the configuration, for rows whose parents passed it.

    A personal step with the action block drops here: the source is clean, and what a method put in need not stop the
    run.

    Args:
        data: steps and limits.
        tokenizer: directory of the tokenizer that a length step counts with.
        erased: marks of records that must not be made again.

    Raises:
        ConfigError: a step cannot be built, as `build_line` says.
    """

    def __init__(self, data: DataSection, tokenizer: Path | None, erased: frozenset[str] = frozenset()) -> None:
        self._line = build_line(tuple(_dropping(step) for step in data.cleaning), tokenizer)
        self._least, self._most = data.min_answer_chars, data.max_row_chars
        self._erased = erased
        self._steps: dict[str, dict[str, Counter[str]]] = {}

    def clean(self, made: list[Row], parents: list[Row]) -> list[Row | Dropped]:
        """Return what becomes of each made row; one that changes keeps its meta and has a new id.

        A row is dropped too if the line changes a text that its method left alone. The parent's text has passed the
        line once, and not every step says the same twice: `&amp;lt;` becomes `&lt;`, and then `<`.

        Args:
            made: rows of one method, each with the id of its own parent in its meta.
            parents: of each row.
        """
        cleaned = self._line.run(made)
        results: dict[str, Row | Dropped] = {row["meta"]["parent"]: row for row in cleaned.kept}
        for row, dropped, step in cleaned.dropped:
            results[row["meta"]["parent"]] = Dropped(f"dropped by {step}", dropped.detail)
        if made:
            steps = self._steps.setdefault(made[0]["meta"]["method"], {})
            for name, counts in cleaned.counts.items():
                steps.setdefault(name, Counter()).update(counts)
        return [self._judged(results[parent["id"]], row, parent) for row, parent in zip(made, parents, strict=True)]

    def steps(self) -> dict[str, list[dict[str, Any]]]:
        """Return method → what each step changed and dropped of its rows, in the order of the line."""
        return {
            method: [{"step": name, **counts} for name, counts in steps.items()]
            for method, steps in self._steps.items()
        }

    def _judged(self, result: Row | Dropped, made: Row, parent: Row) -> Row | Dropped:
        if self._erased and any(isinstance(row, dict) and self._is_erased(row) for row in (made, result)):
            return Dropped(ERASED, ERASED)
        if isinstance(result, Dropped):
            return result
        contents = _contents(result)
        if result is not made:
            texts = zip(_contents(parent), _contents(made), contents, strict=True)
            if any(before == between != after for before, between, after in texts):
                return Dropped(CHANGED_AGAIN, "in a text that was not made")
        flaw = flaw_of_length(contents, self._least, self._most)
        return Dropped(*flaw) if flaw else result

    def _is_erased(self, row: Row) -> bool:
        return not self._erased.isdisjoint(marks_of(row))


def _dropping(step: CleaningStep) -> CleaningStep:
    if isinstance(step, PersonalStep) and step.action == "block":
        return step.model_copy(update={"action": "drop"})
    return step


def _contents(row: Row) -> list[str]:
    """Return the texts of a row, the answer last and before it the rejected one of a pair."""
    contents = [message["content"] for message in row["messages"]]
    return [*contents[:-1], row[REJECTED], contents[-1]] if REJECTED in row else contents
