"""The promotion ledger: an append-only file with a line for every move of the champion, and for every move undone."""

import fcntl
import getpass
import json
import logging
import os
from datetime import UTC, datetime
from typing import Any, Literal

from tasks.contracts.errors import StoreError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import append_jsonl

LedgerEvent = Literal[
    "started", "loaded", "verified", "routed", "promoted", "rolled back", "undone", "undo failed", "reconciled"
]

log = logging.getLogger("llm_retrain.registry")

_UNDER_WAY = ("loaded", "verified", "routed")


def append_to_ledger(
    home: Home,
    event: LedgerEvent,
    model: str,
    from_version: int | None,
    to_version: int | None,
    why: str,
    evidence: str = "",
    intent: dict[str, Any] | None = None,
) -> None:
    """Append one line and sync it: who, when, why, from, to, evidence. A line is there whole or not at all.

    Args:
        home: the state directory.
        event: what happened.
        model: the registered model.
        from_version: the champion before.
        to_version: the version that it moves to.
        why: the reason a person or a schedule gave.
        evidence: what was seen.
        intent: on a "started" line, what recovery needs after a crash: `outcome`, and the `aliases` before.

    Raises:
        StoreError: the ledger cannot be written.
    """
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": _who(),
        "event": event,
        "model": model,
        "from": from_version,
        "to": to_version,
        "why": why,
        "evidence": evidence,
    }
    if intent is not None:
        record["intent"] = intent
    try:
        append_jsonl(home.ledger, record)
    except OSError as error:
        raise StoreError(
            f"the ledger {home.ledger} cannot be written ({error.strerror}); free space or make it writable"
        ) from error


def read_ledger(home: Home, model: str | None = None) -> list[dict[str, Any]]:
    """Return the ledger's lines, oldest first, of one model or of all; a torn line is reported and left out.

    Raises:
        StoreError: the ledger is there and cannot be read.
    """
    try:
        with home.ledger.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"the ledger {home.ledger} cannot be read ({error.strerror})") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            log.warning("Line %d of the ledger %s is torn and left out: %.60r", number, home.ledger, line)
    return [record for record in records if model in (None, record["model"])]


def champions_in_order(home: Home, model: str) -> list[int]:
    """Return the versions that became champion and were not rolled back since; the last is champion."""
    stack: list[int] = []
    for record in read_ledger(home, model):
        if record["event"] == "promoted" and stack[-1:] != [record["to"]]:
            stack.append(record["to"])
        elif record["event"] == "rolled back":
            stack = _back_to(stack, record["to"]) or [record["to"]]
    return stack


def champion_before(home: Home, model: str, version: int) -> int | None:
    """Return the champion that came before `version` was last promoted: what a rollback from it returns to."""
    return next(iter(_back_to(champions_in_order(home, model), version)[-2:-1]), None)


def rolled_back_versions(home: Home, model: str) -> set[int]:
    """Return the versions that were rolled back from and not promoted since: only a person promotes them again."""
    versions: set[int] = set()
    for record in read_ledger(home, model):
        if record["event"] == "rolled back" and record["from"] is not None:
            versions.add(record["from"])
        if record["event"] in ("promoted", "rolled back"):
            versions.discard(record["to"])
    return versions


def unfinished_move(home: Home, model: str) -> dict[str, Any] | None:
    """Return the "started" line of a move that has no end, because its process had none; None if all ended."""
    latest = (record for record in reversed(read_ledger(home, model)) if record["event"] not in _UNDER_WAY)
    last = next(latest, None)
    return last if last is not None and last["event"] == "started" else None


def _back_to(stack: list[int], version: int) -> list[int]:
    """Return the stack up to the last occurrence of `version`; empty if it is not in it."""
    while stack and stack[-1] != version:
        stack = stack[:-1]
    return stack


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return f"uid {os.getuid()}"
