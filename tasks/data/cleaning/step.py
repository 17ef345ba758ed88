"""What a cleaning step is: rows go in by the batch, and each comes out the same, changed or dropped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tasks.data.rows import Message, Row

REJECTED = "rejected"
"""The key under which the row of a preference pair holds the answer that was not chosen."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that leaves the line here.

    Attributes:
        reason: the name it is counted under; one of a few per step.
        detail: what exactly is wrong with this row.
    """

    reason: str
    detail: str


class Step(Protocol):
    """One thing that is done to every row.

    A step is built once in each process from its section of the configuration and holds no open files. What it makes of
    a row depends on nothing but that row.
    """

    name: str
    """What its counts stand under."""

    # A step may also have `signs`, RE2 expressions: a row in whose texts none of them matches leaves it as it came. The
    # texts stand one after the other with gate.TEXT_END after each.

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return what becomes of each row, in the same order.

        A row that is returned as the same object is unchanged; a changed one is a new dict with the id it had (the line
        computes ids at its end). Rows are never mutated.
        """
        ...


@runtime_checkable
class HidesPersonalData(Protocol):
    """A step that can say what may be kept of a text that did not come to it."""

    def hidden(self, row: Row) -> Row | None:
        """Return the row with pseudonyms, the same object if it holds nothing personal; None: no text may be kept."""
        ...


def texts_of(row: Row) -> Iterator[str]:
    """Yield every text of a row: the contents of its messages, and the rejected answer of a preference pair."""
    for message in row["messages"]:
        yield message["content"]
    if REJECTED in row:
        yield row[REJECTED]


def with_texts(row: Row, change: Callable[[str], str]) -> Row:
    """Return the row with `change` applied to every text; the same object if that changes none.

    Args:
        row: is left as it is.
        change: must return the very object it was given when there is nothing to change, or an equal text.
    """
    messages: list[Message] = row["messages"]
    changed: list[Message] | None = None
    for number, message in enumerate(messages):
        text = message["content"]
        new = change(text)
        if new is not text and new != text:
            if changed is None:
                changed = list(messages)
            changed[number] = {**message, "content": new}
    rejected = row.get(REJECTED)
    if rejected is not None:
        new = change(rejected)
        if new != rejected:
            return {**row, "messages": changed or messages, REJECTED: new}
    return row if changed is None else {**row, "messages": changed}
