"""The rows of an older data version that a training replays, so that less of what they taught is forgotten.

They are not those of today's build, so two promises that a build makes are made for them here: what was erased since is
left out, and what this run evaluates is not trained on.
"""

import logging
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import DatasetRef
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of, read_jsonl, write_jsonl
from tasks.contracts.store import Entry, code_digest, damage_of
from tasks.contracts.twins import folded
from tasks.data.ingest import Place
from tasks.data.records.erasure import erased_marks, marks_of
from tasks.data.rows import prompt_of
from tasks.data.versions import find_dataset

log = logging.getLogger("llm_retrain.data")

_KEY = "training.replay"
_EVALUATED, _ERASED = "evaluated", "erased"


def check_replay(digest: str, place: Place) -> None:
    """Refuse a data version that is not there or not as it was written; asked before anything is computed.

    Raises:
        DataError: there is none, there are several, or its files were changed.
    """
    if digest:
        found = find_dataset(place.store, digest, _KEY)
        damage = damage_of(found.path)
        if damage:
            raise DataError(
                f"{_KEY} is {digest!r}, and that version was changed after it was made ({damage}); expected the files "
                f"as they were written: restore {found.path} or name another data version"
            )


def prepare_replay(digest: str, dataset: DatasetRef, place: Place) -> DatasetRef | None:
    """Return the training rows of a data version but for what this run evaluates and what was erased; None without one.

    A row is evaluated if an evaluation row has its prompt, but for case and white space. Nothing is matched nearly.

    Args:
        digest: the beginning of the version's digest; empty: nothing is replayed.
        dataset: what the run trains and evaluates on.
        place: where to work.

    Raises:
        DataError: there is no such version, its files were changed, or no row is left.
    """
    if not digest:
        return None
    check_replay(digest, place)
    version = find_dataset(place.store, digest, _KEY)
    erased = erased_marks(place.home)
    inputs = {
        "version": version.digest,
        "eval_digest": dataset.eval_digest,
        "erased": digest_of(sorted(erased)) if erased else None,
        "code": code_digest("tasks/data/replay.py", "tasks/contracts/twins.py", "tasks/data/records/erasure.py"),
    }

    def write(directory: Path) -> dict[str, Any]:
        kept, left_out = _divide(version, dataset, erased)
        if not kept:
            raise DataError(f"{_KEY} is {digest!r}, and all its training rows are evaluated by this run or erased")
        write_jsonl(directory / "train.jsonl", kept)
        return {"rows": len(kept), "left_out": left_out}

    entry = place.store.produce("replay", inputs, write)
    left_out: dict[str, int] = entry.facts["left_out"]
    said = "".join(f", {count} left out ({reason})" for reason, count in left_out.items())
    log.info("%d rows of data version %s may be replayed%s", entry.facts["rows"], version.digest[:12], said)
    return DatasetRef(
        path=entry.path,
        digest=entry.digest,
        rows_read=entry.facts["rows"] + sum(left_out.values()),
        train_rows=entry.facts["rows"],
        eval_rows=0,
        rejected=left_out,
        eval_digest="",
    )


def _divide(version: Entry, dataset: DatasetRef, erased: frozenset[str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the version's training rows that may be replayed, and how many may not for which reason."""
    evaluated = {folded(prompt_of(row)) for row in read_jsonl(dataset.path / "eval.jsonl")}
    kept, left_out = [], dict.fromkeys((_EVALUATED, _ERASED), 0)
    for row in read_jsonl(version.path / "train.jsonl"):
        if not erased.isdisjoint(marks_of(row)):
            left_out[_ERASED] += 1
        elif folded(prompt_of(row)) in evaluated:
            left_out[_EVALUATED] += 1
        else:
            kept.append(row)
    return kept, {reason: count for reason, count in left_out.items() if count}
