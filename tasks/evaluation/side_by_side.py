"""The answers of all systems to the same rows, brought together and checked to belong together."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Predictions, RegisteredVersion
from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.twins import folded

_FIELDS = ("id", "messages", "reference", "answer")
Likelihoods = tuple[list[float], list[float]]
"""Nats and tokens of each reference."""


@dataclass(frozen=True)
class SideBySide:
    """Answers of every system, in the order of the evaluation rows.

    Attributes:
        ids: row ids.
        prompts: each prompt as text.
        references: what should have been answered.
        answers: system → an answer a row.
        slices: the slice of each row.
        likelihoods: system → how surprised it is by each reference, if its engine says.
        again: system → place of a row → what it said there when it was asked a second time.
        seconds: system → how long it took for these.
        bytes: system → its size.
        conversations: each prompt as messages.
        sets: the set of each row; empty where rows are of none.
    """

    ids: list[str]
    prompts: list[str]
    references: list[str]
    answers: dict[str, list[str]]
    slices: list[str] = field(default_factory=list)
    likelihoods: dict[str, Likelihoods] = field(default_factory=dict)
    again: dict[str, dict[int, str]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    conversations: list[list[dict[str, str]]] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a flat object a row: id, slice, set, prompt, reference, and each system's answer under its name."""
        for position, row_id in enumerate(self.ids):
            yield {
                "id": row_id,
                **({"slice": self.slices[position]} if self.slices else {}),
                **({"set": self.sets[position]} if self.sets else {}),
                "prompt": self.prompts[position],
                "reference": self.references[position],
                **{system: texts[position] for system, texts in self.answers.items()},
            }


def read_side_by_side(predictions: dict[str, Predictions], *learned: Path) -> SideBySide:
    """Read every system's `predictions.jsonl`, without the rows that the champion knows by heart.

    The split keeps the candidate's evaluation rows out of its training rows. The champion was trained on the rows of
    its own day: with other sources, quotas or another seed, evaluation rows of today may be among them.

    Args:
        predictions: system → its answers.
        learned: files of rows that the champion was trained on; rows with a prompt in them are left out.

    Raises:
        EvaluationError: there is no system or no row, a file is missing or malformed, the systems did not answer the
            same rows in the same order, or the champion has learned all of them.
    """
    if not predictions:
        raise EvaluationError("there are no predictions; expected those of base and candidate")
    lines = {system: _read_lines(system, answered) for system, answered in predictions.items()}
    first = next(iter(lines))
    for system, others in lines.items():
        _check_same_rows(first, lines[first], system, others)
    if learned:
        kept = not_learned([line["messages"] for line in lines[first]], learned)
        lines = {system: [others[position] for position in kept] for system, others in lines.items()}
    return SideBySide(
        ids=[line["id"] for line in lines[first]],
        prompts=[prompt_text(line["messages"]) for line in lines[first]],
        references=[line["reference"] for line in lines[first]],
        answers={system: [line["answer"] for line in others] for system, others in lines.items()},
        slices=[line.get("slice", "") for line in lines[first]],
        likelihoods={
            system: ([line["reference_nats"] for line in others], [float(line["reference_tokens"]) for line in others])
            for system, others in lines.items()
            if all("reference_nats" in line for line in others)
        },
        again={
            system: {place: line["again"] for place, line in enumerate(others) if "again" in line}
            for system, others in lines.items()
        },
        seconds={system: [line["seconds"] for line in others if "seconds" in line] for system, others in lines.items()},
        bytes={system: answered.servable_bytes for system, answered in predictions.items()},
        conversations=[line["messages"] for line in lines[first]],
        sets=[line.get("set", "") for line in lines[first]] if any("set" in line for line in lines[first]) else [],
    )


def prompt_text(messages: list[dict[str, str]]) -> str:
    """Return a prompt as text: the content of a single user message, else a paragraph a message with its role."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def count_learned(rows: SideBySide, learned: Iterable[Path]) -> int:
    """Return how many of the rows have a prompt that stands in files of training rows, but for case and white space.

    Raises:
        EvaluationError: a file cannot be read.
    """
    asked = [folded(messages) for messages in rows.conversations]
    known = learned_prompts(set(asked), learned)
    return sum(prompt in known for prompt in asked)


def learned_prompts(asked: set[str], learned: Iterable[Path]) -> set[str]:
    """Return which of the folded prompts stand in files of training rows.

    Raises:
        EvaluationError: a file cannot be read.
    """
    known: set[str] = set()
    for path in learned:
        try:  # of millions of training rows, only those that matter are held
            known.update(prompt for row in read_jsonl(path) if (prompt := folded(row["messages"][:-1])) in asked)
        except (OSError, ValueError, KeyError) as error:
            raise EvaluationError(f"the training rows at {path} cannot be read: {error}") from error
    return known


def learned_files(champion: RegisteredVersion | None) -> tuple[Path, ...]:
    """Return the files of rows that a champion was trained on or could replay; none if there is no champion."""
    places = (champion.dataset_path, champion.replay_path) if champion else ()
    return tuple(path / "train.jsonl" for path in places if path)


def not_learned(prompts: Sequence[list[dict[str, str]]], learned: Iterable[Path]) -> list[int]:
    """Return the places of the prompts that the champion was not trained on.

    Args:
        prompts: of the evaluation rows, as messages.
        learned: files of rows that it was trained on.

    Raises:
        EvaluationError: it was trained on all of them, or a file cannot be read.
    """
    asked = [folded(messages) for messages in prompts]
    known = learned_prompts(set(asked), learned)
    kept = [position for position, prompt in enumerate(asked) if prompt not in known]
    if not kept:
        raise EvaluationError(
            f"the champion was trained on all {len(prompts)} evaluation rows, so nothing can be compared; "
            "name rows that it has not seen in data.evaluation_sources"
        )
    return kept


def _read_lines(system: str, predictions: Predictions) -> list[dict[str, Any]]:
    path = predictions.path / "predictions.jsonl"
    try:
        lines = list(read_jsonl(path))
    except (OSError, json.JSONDecodeError) as error:
        raise EvaluationError(f"the predictions of {system} at {path} cannot be read: {error}") from error
    if not lines or len(lines) != predictions.rows:
        raise EvaluationError(
            f"the predictions of {system} at {path} have {len(lines)} rows; expected {predictions.rows}, at least 1"
        )
    for number, line in enumerate(lines, start=1):
        missing = [field for field in _FIELDS if field not in line]
        if missing:
            raise EvaluationError(f"line {number} of {path} has no {', '.join(missing)}; expected {', '.join(_FIELDS)}")
    return lines


def _check_same_rows(first: str, expected: list[dict[str, Any]], system: str, found: list[dict[str, Any]]) -> None:
    if len(found) != len(expected):
        raise EvaluationError(
            f"{system} answered {len(found)} rows and {first} {len(expected)}; expected the same rows"
        )
    for position, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        for name in ("id", "reference"):
            if ours[name] != theirs[name]:
                raise EvaluationError(
                    f"row {position} of {system} has the {name} {theirs[name]!r}, that of {first} {ours[name]!r}; "
                    "expected the same rows in the same order"
                )
