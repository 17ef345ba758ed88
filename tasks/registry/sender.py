"""The thread that sends a run's journal, beside the one that reads what the training says."""

import logging
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING

from tasks.registry.delivery import Delivery
from tasks.registry.journal import Entry, Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("llm_retrain.registry")

_FLUSH_SECONDS = 3.0
"""Points of curves wait for each other: single metrics are 20 times slower."""
_RETRY_SECONDS = 5.0
_LEAVE_SECONDS = 15.0
"""An MLflow that has taken nothing for so long keeps no run from ending: the next one sends the rest."""


class Sender:
    """Keeps a run's entries in its journal and sends them. Nobody who adds one waits for MLflow.

    After an outage it tries again every few seconds, for as long as the run goes on.
    """

    def __init__(self, client: "MlflowClient", journal: Journal) -> None:
        self._journal, self._delivery = journal, Delivery(client, journal)
        self._hurry, self._leave = threading.Event(), threading.Event()
        self._rounds, self._outage = 0, False
        self._moved = threading.Condition()
        # With the caller's context: Prefect shows lines of the log with the flow run that they belong to.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)
        self._thread.start()

    @property
    def refused(self) -> list[str]:
        """What MLflow refused for good, each with its words."""
        return self._delivery.refused

    def add(self, entry: Entry, urgent: bool = True) -> None:
        """Send an entry after those before it; one that is not urgent waits for others, some seconds at most."""
        self._journal.add(entry)
        if urgent:
            self._hurry.set()

    def flush(self, seconds: float = _LEAVE_SECONDS) -> bool:
        """Wait until everything is sent; return False if MLflow does not answer, or took nothing for so long."""
        with self._moved:
            first, left = self._rounds, len(self._journal)
            deadline = time.monotonic() + seconds
            while len(self._journal):
                if (self._outage and self._rounds > first + 1) or time.monotonic() > deadline:
                    return False
                self._hurry.set()
                self._moved.wait(0.5)
                if len(self._journal) < left:
                    left, deadline = len(self._journal), time.monotonic() + seconds
        return True

    def close(self) -> None:
        """Send what is left, if MLflow takes it, and end; the rest stays in the journal's file."""
        if not self.flush():
            log.warning(
                "MLflow has not taken %d entries of run %s; they are kept in %s, and the next run or llm-retrain "
                "status sends them",
                *(len(self._journal), self._journal.run_id, self._journal.path),
            )
        self._leave.set()
        self._hurry.set()
        self._thread.join(1.0)  # if it still waits for an answer, it gives the file free after that, or dies with us

    def _run(self) -> None:
        try:
            while not self._leave.is_set():
                self._hurry.wait(_RETRY_SECONDS if self._outage else _FLUSH_SECONDS)
                self._hurry.clear()
                self._send_all()
                with self._moved:
                    self._rounds += 1
                    self._moved.notify_all()
        finally:
            self._journal.close()

    def _send_all(self) -> None:
        while len(self._journal) and not self._leave.is_set():
            known = len(self.refused)
            try:
                self._delivery.send_next()
            except Exception as error:  # only outages come out
                if not self._outage:
                    log.warning(
                        "MLflow does not take what run %s has to say; kept in %s and sent again: %s",
                        *(self._journal.run_id, self._journal.path, error),
                    )
                self._outage = True
                return
            if self._outage:
                log.info("MLflow answers again; what run %s has to say goes there", self._journal.run_id)
            self._outage = False
            for refusal in self.refused[known:]:
                log.error("MLflow refused for run %s: %s", self._journal.run_id, refusal)
            with self._moved:
                self._moved.notify_all()
