"""The journal of a run: what it has to tell MLflow, in a file before it is sent, and until MLflow has taken it.

The first line says which run, and of which registry; then a line an entry with its number, and lines that say up to
which number MLflow has them. A run whose process was killed leaves its file, and whoever comes next sends the rest.
"""

import fcntl
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import append_line

log = logging.getLogger("llm_retrain.registry")

Entry = dict[str, Any]


class Journal:
    """The entries of one run in order. One thread adds, another sends; one process at a time has it open.

    Attributes:
        path: the file.
        run_id: the MLflow run.
        tracking_uri: `registry.tracking_uri` of the run's configuration.
        has_end: the last entry says how the run ended.
        tried: MLflow may have entries up to this number although nobody heard that it took them.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.run_id, self.tracking_uri = path, path.stem, ""
        self._descriptor, self._lock = descriptor, threading.Lock()
        self._waiting: deque[tuple[int, Entry]] = deque()
        self._last, self.has_end = 0, False
        self._is_new, self._unwritten = True, False
        self._read()
        self.tried = self._last

    def begin(self, tracking_uri: str) -> None:
        """Say first where the entries go, unless an earlier process did."""
        if self._is_new:
            self._is_new, self.tracking_uri = False, tracking_uri
            self._write({"run": self.run_id, "tracking_uri": tracking_uri})

    def add(self, entry: Entry) -> None:
        """Put an entry at the end."""
        with self._lock:
            self._append(self._last + 1, entry)
            self._write({"number": self._last, "entry": entry})

    def waiting(self, most: int) -> list[tuple[int, Entry]]:
        """Return the first entries that MLflow has not taken, with their numbers."""
        with self._lock:
            return list(islice(self._waiting, most))

    def done(self, number: int) -> None:
        """Note that entries up to this number are settled: taken, or refused for good."""
        with self._lock:
            while self._waiting and self._waiting[0][0] <= number:
                self._waiting.popleft()
            self._write({"done": number})

    def give_up(self) -> None:
        """Forget what was not sent."""
        self.done(self._last)

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Give the file free; it goes if nothing in it is left to send."""
        with self._lock:
            if not self._waiting:
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)

    def _append(self, number: int, entry: Entry) -> None:
        self._last, self.has_end = number, entry["kind"] == "end"
        self._waiting.append((number, entry))

    def _read(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for line in file.read().split(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:  # torn: its writer was killed, or the last line's end
                    continue
                self._take_in(record)

    def _take_in(self, record: dict[str, Any]) -> None:
        if "entry" in record:
            self._append(record["number"], record["entry"])
        elif "done" in record:
            while self._waiting and self._waiting[0][0] <= record["done"]:
                self._waiting.popleft()
        elif "run" in record:
            self._is_new, self.tracking_uri = False, record["tracking_uri"]

    def _write(self, record: dict[str, Any]) -> None:
        """Append a line. Without a disk to write on, the entry is in memory only: a training does not end for that."""
        try:
            append_line(self._descriptor, record, synced=False)
        except OSError as error:
            if not self._unwritten:
                log.warning("%s cannot be written (%s): what MLflow does not take is kept in memory", self.path, error)
            self._unwritten = True


def open_journal(run_id: str, registry: RegistrySection, home: Home) -> Journal:
    """Open the journal of a run, with what an earlier process left in it; wait for whoever still sends from it."""
    home.unsent.mkdir(parents=True, exist_ok=True)
    path = home.unsent / f"{run_id}.jsonl"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # otherwise whoever had it open has deleted it meanwhile
            break
        os.close(descriptor)
    journal = Journal(path, descriptor)
    journal.begin(registry.tracking_uri)
    return journal


def left_journals(home: Home) -> Iterator[Journal]:
    """Yield the journals that no process has open; whoever takes one closes it."""
    for path in sorted(home.unsent.glob("*.jsonl"), key=lambda path: path.stat().st_mtime):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        if not os.fstat(descriptor).st_nlink:
            os.close(descriptor)
            continue
        yield Journal(path, descriptor)
