"""The record of the running Triton server: its process, its ports and the token of its repository API."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.contracts.home import Home
from tasks.contracts.jsonl import canonical_json
from tasks.contracts.processes import find_process, start_mark
from tasks.serving.triton_client import TritonAddress


@dataclass(frozen=True)
class ServerRecord:
    """A server process that was alive when the record was read."""

    pid: int
    address: TritonAddress


def write_record(home: Home, pid: int, address: TritonAddress) -> None:
    """Remember a process, whole or not at all; its mark and its start time tell it from a later one of that pid."""
    process = {"pid": pid, "started": psutil.Process(pid).create_time(), "mark": start_mark(pid)}
    working = _file(home).with_suffix(f".{os.getpid()}")
    descriptor = os.open(working, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds the token
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(canonical_json({**process, "address": asdict(address)}))
    working.replace(_file(home))


def read_record(home: Home) -> ServerRecord | None:
    """Return the recorded process; None if there is none or it has ended."""
    try:
        content = json.loads(_file(home).read_text(encoding="utf-8"))
        if find_process(content["pid"], content["started"], content.get("mark")) is None:
            return None
        return ServerRecord(content["pid"], TritonAddress(**content["address"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # never started, cut off while it was written, or gone


def forget_record(home: Home) -> None:
    """Remove the record of a server that was stopped."""
    _file(home).unlink(missing_ok=True)


def _file(home: Home) -> Path:
    return home.pids / "triton.pid"
