"""The promotion ledger: an append-only file with a line for every move of the champion, and for every move undone."""

import fcntl
import getpass
import json
import os
from datetime import UTC, datetime
from typing import Any, Literal

from tasks.contracts.home import Home
from tasks.contracts.jsonl import canonical_json

LedgerEvent = Literal["started", "loaded", "verified", "routed", "promoted", "rolled back", "undone"]


def append_to_ledger(
    home: Home, event: LedgerEvent, model: str, from_version: int | None, to_version: int, why: str, evidence: str = ""
) -> None:
    """Append one line and sync it: who, when, why, from, to, evidence."""
    home.ledger.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": getpass.getuser(),
        "event": event,
        "model": model,
        "from": from_version,
        "to": to_version,
        "why": why,
        "evidence": evidence,
    }
    line = (canonical_json(record) + "\n").encode()
    descriptor = os.open(home.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_ledger(home: Home, model: str | None = None) -> list[dict[str, Any]]:
    """Return the ledger's lines, oldest first, of one model or of all."""
    if not home.ledger.exists():
        return []
    lines = home.ledger.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if model in (None, record["model"])]


def champions_in_order(home: Home, model: str) -> list[int]:
    """Return the versions that became champion and were not rolled back since: the last is champion, the one before
    it is what a rollback returns to."""
    stack: list[int] = []
    for record in read_ledger(home, model):
        if record["event"] == "promoted" and stack[-1:] != [record["to"]]:
            stack.append(record["to"])
        elif record["event"] == "rolled back":
            while stack and stack[-1] != record["to"]:
                stack.pop()
            if not stack:
                stack.append(record["to"])
    return stack
