"""Rows that are made of training rows, put among them: none asks what an evaluation row asks, or nearly so."""

import heapq
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from tasks.contracts.config import DataSection
from tasks.data.lines import LineReader, LineWriter
from tasks.data.rows import Row, answer_of, asked_text, row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR_EVALUATION = "alike an evaluation row"

_BATCH_ROWS = 2_048


def add_made_rows(
    directory: Path, data: DataSection, erased: frozenset[str] = frozenset()
) -> dict[str, dict[str, int]]:
    """Make rows of those in `train.jsonl` as data.augment says, and write them into it, by id.

    Args:
        directory: a data set with its `train.jsonl` and `eval.jsonl`.
        data: how rows are made, and from which similarity they are near duplicates.
        erased: marks of rows that must not be made again.

    Returns:
        method → rows made ("made"), and tries that made none, by reason.

    Raises:
        ConfigError: a file, model or key that a method needs is missing.
        DataError: an endpoint refuses.
    """
    from tasks.data.augment.augmentation import Augmentation, prompt_key

    train = directory / "train.jsonl"
    taken = {prompt_key(row) for name in ("train", "eval") for row in _rows(directory / f"{name}.jsonl")}
    augmentation = Augmentation(data.augment)
    made = directory / "work-made.jsonl"
    evaluation = list(_rows(directory / "eval.jsonl"))
    ids: list[str] = []
    refused: dict[str, int] = {}
    with LineWriter(made) as writer:
        rows = augmentation.run(_rows(train), taken, erased)
        while batch := list(islice(rows, _BATCH_ROWS)):
            alike = _alike(batch, evaluation, data.near_duplicates)
            for row, is_alike in zip(batch, alike, strict=True):
                if is_alike:
                    refused[row["meta"]["method"]] = refused.get(row["meta"]["method"], 0) + 1
                else:
                    writer.write(row_line(row))
                    ids.append(row["id"])
    _merge(train, made, ids, writer)
    counts = {name: dict(found) for name, found in augmentation.counts.items()}
    for name, number in refused.items():
        counts[name]["made"] -= number
        counts[name][NEAR_EVALUATION] = number
    return counts


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from map(orjson.loads, file)


def _alike(rows: list[Row], evaluation: list[Row], similarity: float) -> "NDArray[np.bool_]":
    """Say which rows are near duplicates of an evaluation row, by prompt or by conversation."""
    import numpy as np

    from tasks.data.duplicates.clusters import find_matches
    from tasks.data.duplicates.signatures import sketch_conversations

    found = np.zeros(len(rows), bool)
    if not similarity:
        return found
    made, held_out = (
        sketch_conversations(
            [asked_text(row) for row in part],
            [answer_of(row) for row in part],
            similarity,
        )
        for part in (rows, evaluation)
    )
    keys = np.arange(len(evaluation))
    for ours, theirs in zip(made[:2], held_out[:2], strict=True):
        found |= find_matches(theirs, keys, ours, similarity).position >= 0
    return found


def _merge(train: Path, made: Path, ids: list[str], writer: LineWriter) -> None:
    """Write training rows and made rows into one file, sorted by id."""
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    joined = train.with_name("work-train.jsonl")
    with train.open("rb") as old, LineReader([made]) as new, joined.open("wb") as out:
        known = ((orjson.loads(line)["id"], line) for line in old)
        added = ((ids[place], new.read(0, writer.offsets[place], writer.lengths[place])) for place in order)
        out.writelines(line for _, line in heapq.merge(known, added))
    joined.replace(train)
    made.unlink()
