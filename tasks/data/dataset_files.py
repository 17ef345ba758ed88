"""The files of a data set: rows to train on, rows to evaluate on, rejected rows and the contamination report."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tasks.contracts.config import DataSection
from tasks.contracts.evaluation_sets import ANCHOR, RECENT
from tasks.data.division import split
from tasks.data.division.index import EVALUATION, Index, load_columns
from tasks.data.division.split import REASONS, Division
from tasks.data.division.turns import equal_groups
from tasks.data.lines import LineReader, LineWriter
from tasks.data.rows import rejected_line_of, row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN_TWINS = 50


class DatasetFiles:
    """Writes the files of a data set; all are in an order that content decides.

    Args:
        directory: where they are written.
        index: the rows that passed the cleaning line.
        division: where each of them goes.
        data: what the reasons speak of.
    """

    def __init__(self, directory: Path, index: Index, division: Division, data: DataSection) -> None:
        self._directory, self._index, self._division, self._data = directory, index, division, data

    def write_chosen(self) -> list[dict[str, str]]:
        """Write the rows for training and for evaluation and return id and set, if there are sets, of the latter."""
        train, evaluation = self._division.train, self._division.evaluation
        sets = self._sets()
        with LineReader(self._index.files) as reader:
            with (self._directory / "train.jsonl").open("wb") as file:
                file.writelines(reader.lines(*self._places(train)))
            with (self._directory / "eval.jsonl").open("wb") as file:
                for line, name in zip(reader.lines(*self._places(evaluation)), sets, strict=True):
                    file.write(_of_set(line, name))
        ids = (self._index.id_of(int(row)) for row in evaluation)
        return [{"id": row_id, "set": name} if name else {"id": row_id} for row_id, name in zip(ids, sets, strict=True)]

    def _sets(self) -> list[str]:
        """Return the set of each evaluation row; empty where there are none."""
        import numpy as np

        evaluation = self._division.evaluation
        if not self._data.recent_eval_rows:
            return [""] * len(evaluation)
        return [RECENT if is_recent else ANCHOR for is_recent in np.isin(evaluation, self._division.recent)]

    def write_rejected(self, stems: list[Path], malformed: Iterable[dict[str, Any]], work: Path) -> None:
        """Write what is in neither.

        Args:
            stems: beginnings of the names of what the jobs dropped.
            malformed: records of pieces that never became rows, without what depends on the order of a file.
            work: a directory for what is needed meanwhile.
        """
        import numpy as np

        with LineWriter(work / "malformed") as writer:
            keys = [_write_malformed(record, writer) for record in malformed]
        index = self._index
        columns = [load_columns(stem.with_name(f"{stem.name}.dropped.npz")) for stem in stems]
        files = [*index.files, *(stem.with_name(f"{stem.name}.dropped") for stem in stems), work / "malformed"]
        rows = np.flatnonzero(self._division.reason)
        key = np.concatenate([*(part["key"] for part in columns), _as_keys(keys), self._index.id_key[rows]])
        sizes = [*(len(part["offset"]) for part in columns), len(keys)]
        tie = np.concatenate([np.zeros(sum(sizes), np.uint64), index.tie[rows]])
        order = np.lexsort((tie, key[:, 1], key[:, 0]))
        file = np.repeat(np.arange(len(index.files), len(files)), sizes)
        offset = np.concatenate([*(part["offset"] for part in columns), writer.offsets]).astype(np.int64)
        length = np.concatenate([*(part["length"] for part in columns), writer.lengths]).astype(np.int64)
        places = (np.append(*both)[order] for both in zip((file, offset, length), self._places(rows), strict=True))
        row_of = np.append(np.full(sum(sizes), -1), rows)[order]
        with (self._directory / "rejected.jsonl").open("wb") as out, LineReader(files) as reader:
            for row, line in zip(row_of.tolist(), reader.lines(*places), strict=True):
                out.write(line if row < 0 else self._rejected(row, line))

    def write_contamination(self) -> dict[str, int]:
        """Write what would have been trained on although it is evaluated, and return the counts."""
        import numpy as np

        index, division = self._index, self._division
        kinds = {"twins": REASONS.index(split.TWIN), "near_twins": REASONS.index(split.NEAR_TWIN)}
        found = {name: np.flatnonzero(division.reason == reason) for name, reason in kinds.items()}
        counts = {name: len(rows) for name, rows in found.items()}
        shown = {
            name: [
                {"row": index.id_of(int(row)), "evaluation_row": index.id_of(int(division.about[row]))}
                for row in rows[np.lexsort((index.id_key[rows, 1], index.id_key[rows, 0]))][:_SHOWN_TWINS]
            ]
            for name, rows in found.items()
        }
        own = self._own_records(found["twins"])
        report = {
            "evaluation_rows": len(division.evaluation),
            "removed_from_training": counts,
            "own_records": own,
            "examples": shown,
        }
        (self._directory / "contamination.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        return {**counts, "own_records": own}

    def _own_records(self, twins: "NDArray[np.int64]") -> int:
        """Count the twins that are an evaluation row themselves, as it stands or as today's line has it, read again."""
        import numpy as np

        index = self._index
        evaluated = self._division.evaluation
        if index.shadows is not None:
            evaluated = np.concatenate([evaluated, index.shadows[:, 0]])
        group = equal_groups(index.conversation[np.concatenate([twins, evaluated])])
        return int(np.isin(group[: len(twins)], group[len(twins) :]).sum())

    def _places(self, rows: "NDArray[np.integer]") -> "tuple[NDArray[Any], NDArray[Any], NDArray[Any]]":
        index = self._index
        return index.file[rows], index.offset[rows], index.length[rows]

    def _rejected(self, row: int, line: bytes) -> bytes:
        reason = REASONS[self._division.reason[row]]
        return rejected_line_of(line, reason, self._detail(row, reason))

    def _detail(self, row: int, reason: str) -> str:
        about = int(self._division.about[row])
        other = self._index.id_of(about) if about >= 0 else ""
        match reason:
            case split.DUPLICATE:
                return f"of row {other}"
            case split.NEAR_DUPLICATE:
                return f"of row {other}, {self._division.similarity[row]:.0%} alike"
            case split.TWIN:
                return f"the prompt is that of row {other}" + (", cleaned as today" if self._is_reworded(row) else "")
            case split.NEAR_TWIN:
                return f"in the cluster of row {other}"
            case split.UNBALANCED:
                return f"data.max_slice_share is {self._data.max_slice_share:g}"
        assert reason == split.NOT_SELECTED, reason
        quota = "eval_rows" if self._index.origin[row] == EVALUATION else "train_rows"
        return f"data.{quota} is {getattr(self._data, quota)}"

    def _is_reworded(self, row: int) -> bool:
        """Say whether a row has the prompt of a frozen one only as that is worded today."""
        about = int(self._division.about[row])
        return about >= 0 and bool((self._index.prompt[row] != self._index.prompt[about]).any())


def _of_set(line: bytes, name: str) -> bytes:
    """Return the line of an evaluation row with its set; one that was frozen may have another, or one too many."""
    if not name and b',"set":' not in line:
        return line
    row = orjson.loads(line)
    row.pop("set", None)
    return row_line({**row, "set": name} if name else row)


def _write_malformed(record: dict[str, Any], writer: LineWriter) -> bytes:
    line = row_line(record)
    writer.write(line)
    return hashlib.blake2b(line, digest_size=16).digest()


def _as_keys(keys: list[bytes]) -> "NDArray[np.uint64]":
    import numpy as np

    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
