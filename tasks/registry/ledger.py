"""The promotion ledger: an append-only file with a line for every move of the champion, and for every move undone.

Its lines are chained (`chain.py`), so that one that was changed, removed, inserted or moved is found.
"""

import getpass
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from tasks.contracts.errors import StoreError
from tasks.contracts.home import Home
from tasks.registry.chain import ChainProblem, append_chained, read_chained

MoveEvent = Literal[
    "started", "loaded", "verified", "routed", "promoted", "rolled back", "undone", "undo failed", "reconciled"
]
ApprovalEvent = Literal["waiting", "approved", "refused", "lapsed"]
LedgerEvent = MoveEvent | ApprovalEvent
Overruling = Literal["rolled back", "refused"]

log = logging.getLogger("llm_retrain.registry")

_UNDER_WAY = ("loaded", "verified", "routed")
_APPROVAL: tuple[str, ...] = get_args(ApprovalEvent)
_TEXTS = ("time", "who", "event", "model", "why", "evidence")
_VERSIONS = ("from", "to")
_ABOUT_A_VERSION = ("started", "promoted", "rolled back", *_APPROVAL)


def append_to_ledger(
    home: Home,
    event: LedgerEvent,
    model: str,
    from_version: int | None,
    to_version: int | None,
    why: str,
    evidence: str = "",
    intent: dict[str, Any] | None = None,
    approval: dict[str, Any] | None = None,
) -> None:
    """Append one line and sync it: who, when, why, from, to, evidence, and the digest of the line before.

    A line is there whole or not at all. What a crash tore in the middle of its writing stays, on a line of its own.

    Args:
        home: the state directory.
        event: what happened.
        model: the registered model.
        from_version: the champion before.
        to_version: the version that it moves to.
        why: the reason a person or a schedule gave.
        evidence: what was seen.
        intent: on a "started" line, what recovery needs after a crash: `outcome`, and the `aliases` before.
        approval: on a line about a person's decision, what it is about; see `approvals.py`.

    Raises:
        StoreError: the ledger cannot be written.
    """
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": this_user(),
        "event": event,
        "model": model,
        "from": from_version,
        "to": to_version,
        "why": why,
        "evidence": evidence,
    }
    record |= {key: value for key, value in (("intent", intent), ("approval", approval)) if value is not None}
    try:
        append_chained(home.ledger, home.ledger_head, record)
    except OSError as error:
        raise StoreError(
            f"the ledger {home.ledger} cannot be written ({error.strerror}); free space or make it writable"
        ) from error


def read_ledger(home: Home, model: str | None = None) -> list[dict[str, Any]]:
    """Return the ledger's lines, oldest first, of one model or of all; a torn line is reported and left out.

    Raises:
        StoreError: the ledger is there and cannot be read.
    """
    return [record for _, record in numbered_ledger(home, model)]


def numbered_ledger(home: Home, model: str | None = None) -> list[tuple[int, dict[str, Any]]]:
    """Return the same lines, each with its number, from 1."""
    records: list[tuple[int, dict[str, Any]]] = []
    for number, record in enumerate(_read(home)[0], start=1):
        if record is not None and _is_whole(record):
            records.append((number, record))
        else:
            log.warning("Line %d of the ledger %s is no whole line and is left out", number, home.ledger)
    return [(number, record) for number, record in records if model in (None, record["model"])]


def _is_whole(record: dict[str, Any]) -> bool:
    """Say whether a record has what every line has; one that llm-retrain did not write may hold anything."""
    if not all(isinstance(record.get(key), str) for key in _TEXTS):
        return False
    before, after = (record.get(key, "") for key in _VERSIONS)
    is_number = isinstance(after, int) or (after is None and record["event"] not in _ABOUT_A_VERSION)
    return is_number and (before is None or isinstance(before, int)) and _can_be_ended(record.get("intent"))


def _can_be_ended(intent: Any) -> bool:
    """Say whether recovery finds what it needs on a "started" line; those of before there was an intent have none."""
    if intent is None:
        return True
    is_one = isinstance(intent, dict) and intent.get("outcome") in get_args(MoveEvent)
    aliases = intent.get("aliases") if is_one else None
    return isinstance(aliases, dict) and all(isinstance(version, int) for version in aliases.values())


def verify_ledger(home: Home) -> list[ChainProblem]:
    """Return every line that is not as it was written, with what is wrong; empty if the chain is whole.

    There were no decisions before there was a chain, so one without it is none of llm-retrain's.

    Raises:
        StoreError: the ledger is there and cannot be read.
    """
    records, problems = _read(home)
    known = {problem.line for problem in problems}
    loose = [
        ChainProblem(number, "is a decision outside of the chain: it was not written by llm-retrain", number)
        for number, record in enumerate(records, start=1)
        if record is not None and record.get("event") in _APPROVAL and "previous" not in record
    ]
    return [*problems, *(each for each in loose if each.line not in known)]


def previous_after_rollback(home: Home, model: str, champion: int | None, to: int) -> int | None:
    """Return the champion before `to` once `champion` is rolled back to it: what the next rollback returns to."""
    return next(iter(champions(home, model).rolled_back(champion, to).in_order[-2:-1]), None)


def overruled_versions(home: Home, model: str) -> dict[int, Overruling]:
    """Return what a person decided against and nobody promoted since, with how; only a person promotes it again.

    A rollback over several versions is like as many rollbacks: it leaves each of them.
    """
    return champions(home, model).left


def champions_ever(home: Home, model: str) -> set[int]:
    """Return every version that was champion at some time, also those that were rolled back."""
    return {record["to"] for record in read_ledger(home, model) if record["event"] in ("promoted", "rolled back")}


def unfinished_move(home: Home, model: str) -> dict[str, Any] | None:
    """Return the "started" line of a move that has no end, because its process had none; None if all ended."""
    passed_over = (*_UNDER_WAY, *_APPROVAL)  # a decision is asked for and made beside a move
    latest = (record for record in reversed(read_ledger(home, model)) if record["event"] not in passed_over)
    last = next(latest, None)
    return last if last is not None and last["event"] == "started" else None


@dataclass(frozen=True)
class Champions:
    """The champions at some time.

    Attributes:
        in_order: those that were not rolled back from since; the last is champion.
        left: what was rolled back from or refused, and not promoted since, with how.
    """

    in_order: list[int]
    left: dict[int, Overruling]

    def promoted(self, version: int) -> "Champions":
        """Return what they are after a promotion."""
        in_order = self.in_order if self.in_order[-1:] == [version] else [*self.in_order, version]
        return Champions(in_order, _without(self.left, version))

    def refused(self, version: int) -> "Champions":
        """Return what they are after a person refused a version."""
        return Champions(self.in_order, {**self.left, version: "refused"})

    def rolled_back(self, champion: int | None, to: int) -> "Champions":
        """Return what they are after a rollback: those up to the last time that `to` was champion.

        One that was rolled back itself takes the place of the champion.
        """
        kept = list(self.in_order)
        while kept and kept[-1] != to:
            kept.pop()
        if not kept:
            kept = [*(self.in_order[:-1] if self.in_order[-1:] == [champion] else self.in_order), to]
        left = dict(self.left)
        for version in (champion, *self.in_order[len(kept) :]):
            if version is not None:
                left[version] = "rolled back"
        return Champions(kept, _without(left, to))


def _without(left: dict[int, Overruling], version: int) -> dict[int, Overruling]:
    return {other: how for other, how in left.items() if other != version}


def champions(home: Home, model: str) -> Champions:
    """Return what the ledger says of a model's champions."""
    found = Champions([], {})
    for record in read_ledger(home, model):
        if record["event"] == "promoted":
            found = found.promoted(record["to"])
        elif record["event"] == "rolled back":
            found = found.rolled_back(record["from"], record["to"])
        elif record["event"] == "refused":
            found = found.refused(record["to"])
    return found


def _read(home: Home) -> tuple[list[dict[str, Any] | None], list[ChainProblem]]:
    try:
        return read_chained(home.ledger, home.ledger_head)
    except OSError as error:
        raise StoreError(f"the ledger {home.ledger} cannot be read ({error.strerror})") from error


def this_user() -> str:
    """Return the name of who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return f"uid {os.getuid()}"
