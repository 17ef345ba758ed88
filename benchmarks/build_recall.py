"""What a build made of the planted near duplicates, seen from its files alone.

A planted pair is found if one of the two was dropped as a near duplicate, or both are exact copies of one row by the
time they were cleaned. Where a row was dropped as an exact copy, the row it is a copy of answers for it. That rows are
in one cluster is not written anywhere; what it is good for is: no pair has a row on each side of the split.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_rows import Planted, prompt_of


@dataclass(frozen=True)
class Outcome:
    """What became of each row of a data version, by id.

    Attributes:
        side: "train" or "eval" of the rows that are used.
        exact: id → id of the row that it is an exact copy of.
        near: id → id of the row that it is a near duplicate of.
        decided: rows that came as far as the search for duplicates.
    """

    side: dict[str, str]
    exact: dict[str, str]
    near: dict[str, str]
    decided: set[str]

    @classmethod
    def read(cls, dataset: Path) -> "Outcome":
        """Read train.jsonl, eval.jsonl and rejected.jsonl."""
        from tasks.data.division.split import DUPLICATE, NEAR_DUPLICATE, REASONS
        from tasks.data.rows import id_in_line

        side: dict[str, str] = {}
        for name in ("train", "eval"):
            with (dataset / f"{name}.jsonl").open("rb") as file:
                side |= {id_in_line(line): name for line in file}
        decided = set(side)
        linked: dict[str, dict[str, str]] = {DUPLICATE: {}, NEAR_DUPLICATE: {}}
        with (dataset / "rejected.jsonl").open("rb") as file:
            for record in map(json.loads, file):
                if not record["row"] or record["reason"] not in REASONS:
                    continue
                row = record["row"]["id"]
                decided.add(row)
                if record["reason"] in linked:
                    of = record["detail"].removeprefix("of row ")[: len(row)]
                    if of != row:  # several rows with one id: one of them stays
                        linked[record["reason"]][row] = of
        return cls(side, linked[DUPLICATE], linked[NEAR_DUPLICATE], decided)

    def first_of_equals(self, row: str) -> str:
        """Return the row that is left of exact copies."""
        return self.exact.get(row, row)

    def found(self, one: str, other: str) -> bool:
        """Tell whether a pair was found."""
        first, second = self.first_of_equals(one), self.first_of_equals(other)
        return first == second or first in self.near or second in self.near

    def side_of(self, row: str) -> str | None:
        """Return the side of what is left of a row and its duplicates; None: it is on none."""
        first = self.first_of_equals(row)
        return self.side.get(self.near.get(first, first))


def near_duplicate_recall(
    planted: Planted, rows: Path, similarity: float, store: Path, dataset: Path
) -> dict[str, Any]:
    """Return the recall of a build on planted near pairs, and how many were divided.

    Args:
        planted: the pairs.
        rows: the file that was built from, the first lines of `planted.rows` or all of them.
        similarity: pairs that are at least so similar count.
        store: where the lineage of the data version is, which tells what cleaning made of each id.
        dataset: the data version.
    """
    ids = _ids_as_read(rows)
    with planted.pairs.open(encoding="utf-8") as file:
        pairs = [pair for pair in map(json.loads, file) if pair["row"] < len(ids)]
    near = [pair for pair in pairs if pair["kind"] != "exact" and pair["jaccard"] >= similarity]
    cleaned, outcome = _cleaned_ids(store), Outcome.read(dataset)
    named = [[cleaned.get(ids[pair[key]], ids[pair[key]]) for key in ("row", "of")] for pair in near]
    judged = [(one, other) for one, other in named if one in outcome.decided and other in outcome.decided]
    sides = [{outcome.side_of(one), outcome.side_of(other)} for one, other in judged]
    return {
        "near_pairs": len(judged),
        "near_pairs_dropped_by_steps": len(near) - len(judged),
        "near_duplicate_recall": sum(outcome.found(*pair) for pair in judged) / len(judged),
        "near_pairs_across_the_split": sum({"train", "eval"} <= side for side in sides),
    }


def _ids_as_read(rows: Path) -> list[str]:
    from tasks.data.rows import id_of

    with rows.open(encoding="utf-8") as file:
        return [
            id_of([{"role": "user", "content": prompt_of(row)}, {"role": "assistant", "content": row["output"]}])
            for row in map(json.loads, file)
        ]


def _cleaned_ids(store: Path) -> dict[str, str]:
    """Return, of every row that cleaning changed, the id it had as it was read and the one it has now."""
    from tasks.contracts.store import Store

    (entry,) = Store(store).entries("lineage")
    pairs = (entry.path / "pairs").read_bytes().hex()
    return {pairs[start + 64 : start + 128]: pairs[start : start + 64] for start in range(0, len(pairs), 128)}
