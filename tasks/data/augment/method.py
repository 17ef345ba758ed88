"""What a method of augmentation is: rows go in by the batch, and of each comes another one or none."""

import random
from collections.abc import Callable
from typing import Protocol

from tasks.data.cleaning.markdown_code import prose_spans
from tasks.data.rows import Message, Row


class Method(Protocol):
    """One way to make rows. What it makes of a row depends on the row and its random numbers alone."""

    name: str
    """Stands in `meta.method` of the rows it makes."""

    def make(self, rows: list[Row], draws: list[random.Random]) -> list[Row | None]:
        """Return for each row another one with other texts, everything else as it was; None where there is none.

        Args:
            rows: are never mutated.
            draws: a source of random numbers for each row.
        """
        ...

    def depends_on(self) -> dict[str, str]:
        """Return what the result depends on beside the rows and the section: name → digest or version."""
        ...


def question_of(row: Row) -> str:
    """Return the last message of the user."""
    question: str = row["messages"][_place_of_question(row)]["content"]
    return question


def with_question(row: Row, question: str) -> Row | None:
    """Return the row with another question; None if it is blank or the same."""
    if not question.strip() or question == question_of(row):
        return None
    messages: list[Message] = list(row["messages"])
    place = _place_of_question(row)
    messages[place] = {**messages[place], "content": question}
    return {**row, "messages": messages}


def with_changed_prose(text: str, change: Callable[[str], str]) -> str:
    """Return the text with `change` applied outside Markdown code."""
    spans = prose_spans(text)
    if spans == [(0, len(text))]:
        return change(text)
    pieces = []
    for (start, end), after in zip(spans, [start for start, _ in spans[1:]] + [len(text)], strict=True):
        pieces += [change(text[start:end]), text[end:after]]
    return "".join(pieces)


def _place_of_question(row: Row) -> int:
    return max(place for place, message in enumerate(row["messages"]) if message["role"] == "user")
