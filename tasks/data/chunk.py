"""One file of rows through the cleaning line: the rows that are kept with an index of them, and those that are dropped.

A job of the data stage: it runs in any process, on JSON facts, and writes files beside each other.
"""

import gc
import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from tasks.contracts.cleaning_config import CleaningStep
from tasks.contracts.twins import MESSAGE_START, fold_text, folded
from tasks.data.cleaning.line import CONVERSATION, Line, build_line
from tasks.data.cleaning.text import has_mark_flood
from tasks.data.division.turns import TurnHashes
from tasks.data.duplicates.signatures import U8, Sketch, sketch_conversations, write_signatures
from tasks.data.lines import LineWriter, batches_of_lines
from tasks.data.records.erasure import ERASED, marks_of
from tasks.data.records.lineage import Lineage
from tasks.data.rows import (
    PERSONAL_DATA,
    Row,
    asked_text,
    flaw_of_length,
    line_without_text,
    rejected_line,
    row_line,
)

_BATCH_ROWS = 2_048
_STEPS: TypeAdapter[tuple[CleaningStep, ...]] = TypeAdapter(tuple[CleaningStep, ...])


def clean_chunk(job: dict[str, Any]) -> dict[str, Any]:
    """Clean one file of rows.

    Args:
        job: `rows` (a file of canonical rows), `out` (the beginning of the names of the files that are written),
            `steps` (the cleaning steps), `tokenizer` (directory, or null), `min_answer_chars`, `max_row_chars`,
            `erased` (a JSON file of the marks of erased records, or null), `similarity` (from which rows are near
            duplicates; 0: they are not looked for).

    Returns:
        `read`, `kept`, `dropped` (reason → rows), `limits` (those of them that broke a limit in characters), `steps`
        (step → changed and dropped), `slices`. Beside `out` stand `.rows` and `.rows.npz` (columns of the index),
        `.dropped` and `.dropped.npz`, `.lineage` (what became what) and the sketches of prompts, of whole conversations
        and of answers (`.prompt`, `.conversation`, `.answer`).

    Raises:
        DataError: a step refuses the data, for example personal data where none may be.
    """
    tokenizer = Path(job["tokenizer"]) if job["tokenizer"] else None
    line = build_line(_STEPS.validate_python(job["steps"]), tokenizer)
    with (
        LineWriter(Path(f"{job['out']}.rows")) as kept,
        LineWriter(Path(f"{job['out']}.dropped")) as dropped,
        _no_search_for_cycles(),
    ):
        chunk = _Chunk(job, line, kept, dropped)
        for lines in batches_of_lines(Path(job["rows"]), _BATCH_ROWS):
            chunk.clean(lines)
    return chunk.finish()


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Spare the collector looking through all rows again and again: none of what is made here refers to itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Chunk:
    """The files of one chunk while they are written."""

    def __init__(self, job: dict[str, Any], line: Line, kept: LineWriter, dropped: LineWriter) -> None:
        self._job, self._line, self._out = job, line, job["out"]
        self._kept, self._dropped = kept, dropped
        self._erased = frozenset(orjson.loads(Path(job["erased"]).read_bytes()) if job["erased"] else ())
        self._dropped_keys: list[bytes] = []
        self._reasons: Counter[str] = Counter()
        self._limits: Counter[str] = Counter()
        self._steps: dict[str, Counter[str]] = {}
        self._ids: list[str] = []
        self._ties: list[bytes] = []
        self._conversations: list[bytes] = []
        self._prompts: list[bytes] = []
        self._lineage = Lineage()
        self._slices: dict[str, int] = {}
        self._slice_of: list[int] = []
        self._turns = TurnHashes()
        self._rows = 0
        self._sketches: list[tuple[Sketch, Sketch, U8]] = []

    def clean(self, lines: list[bytes]) -> None:
        """Take rows through the line, and write what comes of them."""
        rows: list[Row] = [orjson.loads(line) for line in lines]
        spelled = {id(row): line for row, line in zip(rows, lines, strict=True)}
        self._rows += len(rows)
        cleaned = self._line.run(self._without_erased(rows))
        for name, counts in cleaned.counts.items():
            self._steps.setdefault(name, Counter()).update(counts)
        self._lineage.extend(cleaned.lineage)
        for row, dropped, step in cleaned.dropped:
            self._drop(row, dropped.reason, dropped.detail, step)
        prompts, answers = list[str](), list[str]()
        for row in self._without_erased(cleaned.kept):
            messages = row["messages"]
            contents = [message["content"] for message in messages]
            answer = contents[-1]
            if "rejected" in row:
                contents.insert(-1, row["rejected"])
                answer = f"{answer}\n{row['rejected']}"  # as answered_text
            flaw = flaw_of_length(contents, self._job["min_answer_chars"], self._job["max_row_chars"])
            if flaw is not None:
                self._limits[flaw[0]] += 1
                self._drop(row, *flaw)
                continue
            self._keep(row, spelled.get(id(row)) or row_line(row))
            is_plain = len(messages) == 2 and messages[0]["role"] == "user"
            prompts.append(contents[0] if is_plain else asked_text(row))
            answers.append(answer)
        if self._job["similarity"]:
            self._sketches.append(sketch_conversations(prompts, answers, self._job["similarity"]))

    def finish(self) -> dict[str, Any]:
        """Write the columns of the index and return the counts."""
        import numpy as np

        rows = len(self._slice_of)
        np.savez(
            f"{self._out}.rows.npz",
            id=np.frombuffer(bytes.fromhex("".join(self._ids)), np.uint8).reshape(rows, 32),
            tie=np.frombuffer(b"".join(self._ties), np.uint64),
            conversation=np.frombuffer(b"".join(self._conversations), np.uint64).reshape(rows, 2),
            prompt=np.frombuffer(b"".join(self._prompts), np.uint64).reshape(rows, 2),
            slice=np.array(self._slice_of, np.int32),
            offset=np.array(self._kept.offsets, np.int64),
            length=np.array(self._kept.lengths, np.int32),
            **self._turns.columns(),
        )
        np.savez(
            f"{self._out}.dropped.npz",
            key=np.frombuffer(b"".join(self._dropped_keys), np.uint64).reshape(-1, 2),
            offset=np.array(self._dropped.offsets, np.int64),
            length=np.array(self._dropped.lengths, np.int32),
        )
        self._lineage.write(Path(f"{self._out}.lineage"))
        if self._job["similarity"]:
            self._write_sketches()
        return {
            "read": self._rows,
            "kept": rows,
            "dropped": dict(self._reasons),
            "limits": dict(self._limits),
            "steps": {name: dict(counts) for name, counts in self._steps.items()},
            "slices": list(self._slices),
        }

    def _write_sketches(self) -> None:
        """Write what finds near duplicates among the rows of all chunks."""
        import numpy as np

        parts = self._sketches or [sketch_conversations([], [], self._job["similarity"])]
        Sketch.joined([prompt for prompt, _, _ in parts]).write(Path(f"{self._out}.prompt"))
        Sketch.joined([whole for _, whole, _ in parts]).write(Path(f"{self._out}.conversation"))
        write_signatures(np.concatenate([answer for _, _, answer in parts]), Path(f"{self._out}.answer"))

    def _keep(self, row: Row, line: bytes) -> None:
        self._kept.write(line)
        self._ids.append(row["id"])
        self._ties.append(hashlib.blake2b(line, digest_size=8).digest())
        conversation = folded(row["messages"])
        prompt = conversation[: conversation.rindex(MESSAGE_START) - 1]
        hashed = hashlib.blake2b(prompt.encode(), digest_size=16)
        self._prompts.append(hashed.digest())
        hashed.update(conversation[len(prompt) :].encode())
        if len(row["messages"]) > 2 or "rejected" in row:  # most rows are a question and its answer
            self._turns.add(len(self._slice_of), conversation, "rejected" in row)
        if "rejected" in row:
            hashed.update((MESSAGE_START + fold_text(row["rejected"])).encode())
        self._conversations.append(hashed.digest())
        self._slice_of.append(self._slices.setdefault(row["slice"], len(self._slices)))

    def _drop(self, row: Row, reason: str, detail: str, step: str = CONVERSATION) -> None:
        if self._erased and self._is_erased(row):  # a step before the one that dropped it made it the erased record
            reason = detail = ERASED  # no id: it may be that of the text before it got pseudonyms
        elif self._erased and not self._can_fold(row):
            detail = f"{detail}; its text is not kept: too many combining marks to compare it with erased records"
            self._reject(line_without_text(row, reason, detail), reason)
            return
        shown = None if reason in (ERASED, PERSONAL_DATA) else self._line.without_personal_data(row, step)
        if shown is None:
            self._reject(line_without_text(row, reason, detail), reason)
            return
        if shown is not row:
            self._lineage.extend([(shown["id"], row["id"])])
        self._reject(rejected_line(shown, reason, detail), reason)

    def _reject(self, line: bytes, reason: str) -> None:
        self._dropped.write(line)
        self._dropped_keys.append(hashlib.blake2b(line, digest_size=16).digest())
        self._reasons[reason] += 1

    def _without_erased(self, rows: list[Row]) -> list[Row]:
        """Take out what was erased, before the line and after it: a step may make two records alike."""
        if not self._erased:
            return rows
        left = []
        for row in rows:
            if self._is_erased(row):
                self._drop(row, ERASED, ERASED)
            else:
                left.append(row)
        return left

    def _is_erased(self, row: Row) -> bool:
        if row["id"] in self._erased:
            return True
        return self._can_fold(row) and not self._erased.isdisjoint(marks_of(row))

    def _can_fold(self, row: Row) -> bool:
        """Tell whether folding a row cannot take time with its square, as it does for a run of combining marks."""
        contents = [message["content"] for message in row["messages"]]
        return sum(map(len, contents)) <= self._job["max_row_chars"] or not any(map(has_mark_flood, contents))
