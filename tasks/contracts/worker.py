"""Work in a process of its own: running out of memory, a crash or a cancel takes the worker and not the flow.

The parent calls `run_worker("tasks.training.process", spec, …)`; the module's `__main__` calls `worker_main(run)`.
A worker says what happens as one JSON object a line on standard output; its standard error goes to a log file.
Whatever it fails of, the parent raises one sentence: the worker's own, or what ended it and where the log is.
A parent of several workers starts each as a `Worker` and may send them facts, which they take from `received`.
"""

import ctypes
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from tasks.contracts import errors
from tasks.contracts.errors import LlmRetrainError
from tasks.contracts.home import PROJECT_ROOT

log = logging.getLogger("llm_retrain.worker")

Event = dict[str, Any]
Listener = Callable[[Event], None]

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10.0
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")  # Python's, and what torch raises for a GPU
_CPU_MEMORY = "can't allocate memory"  # torch's RuntimeError for a CPU
_SHOWN_CHARS = 400
_READ_BYTES = 1 << 16


class EnoughHeard(Exception):
    """Raised by a listener that wants no more of a worker: it is ended, and what it says of that is nobody's news."""


def ignore_event(event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker process is started with.

    Attributes:
        module: dotted name of the module to run.
        spec: JSON facts for the worker's `run`.
        log_path: where its standard error is appended, and what it prints that is no event.
        error_type: of the error that tells of an end without a sentence of its own.
        memory_hint: what to change when its memory runs out, with the config key.
        stop_seconds: time it has to end by itself when it is asked to; then it is killed.
    """

    module: str
    spec: dict[str, Any]
    log_path: Path
    error_type: type[LlmRetrainError]
    memory_hint: str
    stop_seconds: float = _STOP_SECONDS


def run_worker(
    module: str,
    spec: dict[str, Any],
    log_path: Path,
    error_type: type[LlmRetrainError],
    listener: Listener = ignore_event,
    memory_hint: str = "free memory or choose a smaller base_model.source",
) -> list[Event]:
    """Run a worker module to its end and return the events it said.

    Args:
        module: dotted name of the module to run.
        spec: JSON facts for the worker's `run`.
        log_path: where its standard error is appended, and what it prints that is no event.
        error_type: raised when the worker fails.
        listener: called with each event as it is said.
        memory_hint: what to change when its memory runs out, with the config key.

    Raises:
        LlmRetrainError: of `error_type`; with the worker's own sentence, or with how it ended and where its log is.
    """
    return follow(WorkerOrder(module, spec, log_path, error_type, memory_hint), listener)


def follow(order: WorkerOrder, listener: Listener = ignore_event, deadline: float | None = None) -> list[Event]:
    """Run a worker to its end and return the events it said.

    Args:
        order: what to run.
        listener: called with each event as it is said.
        deadline: when to ask it to stop, on the clock of `time.monotonic`; None: never.

    Raises:
        LlmRetrainError: of the order's `error_type`, or of a class below it; with the worker's own sentence, or with
            how it ended and where its log is.
    """
    events: list[Event] = []
    with Worker(order) as worker:
        worker.end_input()
        while not worker.has_ended:
            if deadline is not None and time.monotonic() >= deadline:
                deadline = worker.end_soon()
            wait_seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            if select.select([worker], [], [], wait_seconds)[0]:
                for event in worker.read():
                    listener(event)
                    events.append(event)
        failure = worker.failure()
    if failure is not None:
        raise failure if isinstance(failure, order.error_type) else order.error_type(str(failure))
    return events


class Worker:
    """A worker process between its start and its end; several can be waited for at a time, as `fileno` is there.

    A context manager: however its block is left, the process has ended. A cancelled flow leaves nothing running.
    """

    def __init__(self, order: WorkerOrder) -> None:
        self._order = order
        self._unread = b""
        self._error: Event | None = None
        self._asked_to_end = False
        self.has_ended = False
        """It will say no more."""

    def __enter__(self) -> Self:
        """Start the process."""
        order = self._order
        order.log_path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="llm-retrain-"))
            spec_path = Path(folder) / "spec.json"
            spec_path.write_text(json.dumps(order.spec), encoding="utf-8")
            self._log = opened.enter_context(order.log_path.open("a", encoding="utf-8"))
            self._log_start_bytes = os.fstat(self._log.fileno()).st_size
            self._process = subprocess.Popen(
                [sys.executable, "-m", order.module, str(spec_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=PROJECT_ROOT,
            )
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the process, if it goes on, and log what it says of its end: nobody else reads that any more."""
        is_news = kind is None or not issubclass(kind, EnoughHeard)
        with self._opened:
            try:
                self.end_input()
                self.terminate()
                self._read_to_the_end(time.monotonic() + self._order.stop_seconds, is_news)
                self._process.wait(timeout=self._order.stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            finally:
                assert self._process.stdout is not None
                self._process.stdout.close()

    def _read_to_the_end(self, deadline: float, is_news: bool) -> None:
        """Read until the worker says no more; TimeoutExpired if a time comes first."""
        said = self._error
        while not self.has_ended:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self._order.module, self._order.stop_seconds)
            self.read()
        if is_news and self._error is not None and said is None:
            log.warning("%s", _explain_error(self._error, self._order))

    def fileno(self) -> int:
        """Return the descriptor that is readable when the worker says something, or has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self) -> list[Event]:
        """Wait until the worker says something or ends, and return the events that are complete."""
        block = os.read(self.fileno(), _READ_BYTES)
        self.has_ended = not block
        *lines, self._unread = (self._unread + block).split(b"\n") if block else [self._unread, b""]
        events = []
        for line in lines:
            event = _event_in(line)
            if event is not None:
                events.append(event)
                if event["event"] == "error":
                    self._error = self._error or event
            elif line:
                self._log.write(line.decode("utf-8", errors="replace") + "\n")
                self._log.flush()
        return events

    def send(self, facts: dict[str, Any]) -> None:
        """Send facts, which the worker takes from `received`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and `failure` will say of what
            self._process.stdin.write(json.dumps(facts).encode() + b"\n")
            self._process.stdin.flush()

    def end_input(self) -> None:
        """Say that nothing more will be sent."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def terminate(self) -> None:
        """Ask the process to end, and do not wait for it."""
        if self._process.poll() is None:
            self._process.terminate()

    def end_soon(self) -> float | None:
        """Ask the process to end, and kill it when it was asked before; return when to look again, None: never."""
        if self._asked_to_end:
            self._process.kill()
            return None
        self._asked_to_end = True
        self.terminate()
        return time.monotonic() + self._order.stop_seconds

    def failure(self) -> LlmRetrainError | None:
        """Wait for the end and return what the worker failed of: an error of its own class, if that is one of ours."""
        status, order = self._process.wait(), self._order
        if status == 0:
            return None
        if self._error is None:
            return order.error_type(_explain_exit(status, order, self._log_start_bytes))
        said = getattr(errors, self._error.get("error", ""), order.error_type)
        assert issubclass(said, LlmRetrainError)
        return said(_explain_error(self._error, order))


def worker_main(run: Callable[[dict[str, Any]], None], shares_output: bool = False) -> None:
    """Be the worker: read the spec named on the command line, call `run`, and exit with its outcome.

    Args:
        run: the work.
        shares_output: processes that it starts are workers, too, whose events go where its own go.
    """
    # Linux sends this when the parent dies, even by SIGKILL: no work goes on that nobody will read.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Events own standard output; a library that prints there must not break the protocol.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    if not shares_output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _events.append(events)
    try:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except Exception as error:  # any failure must reach the parent as a sentence; the log keeps the rest
        say("error", **error_facts(error))
        sys.exit(1)


def error_facts(error: Exception) -> dict[str, str]:
    """Return what a worker says of a failure: `message`, and `error`, a class of ours, or else `type`."""
    if isinstance(error, LlmRetrainError):
        return {"message": str(error), "error": type(error).__name__}
    traceback.print_exception(error)
    return {"message": " ".join(str(error).split()), "type": type(error).__name__}


_events: list[IO[str]] = []


_errors_only: list[bool] = []


def speak_of_errors_only() -> None:
    """Be a worker beside one that says the same events: from now on say only "error"."""
    _errors_only.append(True)


def say(event: str, **facts: Any) -> None:
    """Say one event to the parent; outside of a worker nobody listens."""
    if _errors_only and event != "error":
        return
    for stream in tuple(_events):
        try:
            stream.write(json.dumps({"event": event, **facts}) + "\n")
        except BrokenPipeError:  # the parent is gone: as if it had asked to end
            _events.remove(stream)
            signal.raise_signal(signal.SIGTERM)


def received() -> Iterator[dict[str, Any]]:
    """Yield in a worker what the parent sends, until it sends no more."""
    for line in sys.stdin:
        yield json.loads(line)


def _event_in(line: bytes) -> Event | None:
    """Read a line of a worker's standard output; None if it is no event, but what some library printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _explain_error(said: Event, order: WorkerOrder) -> str:
    """Spell the worker's "error" event: a sentence of ours as it is, any other exception with its type and the log."""
    message, kind = said["message"], said.get("type")
    if kind is None:
        return str(message)
    if kind in _OUT_OF_MEMORY or _CPU_MEMORY in message:
        return f"{order.module} ran out of memory ({kind}); {order.memory_hint} (log: {order.log_path})"
    shown = f"{kind}: {message[:_SHOWN_CHARS]}" if message else kind
    return f"{order.module} failed with {shown} (log: {order.log_path})"


def _explain_exit(status: int, order: WorkerOrder, log_start_bytes: int) -> str:
    """Explain an end without words: the signal, or the last line that this very run left in the log."""
    if status == -signal.SIGKILL:
        return (
            f"{order.module} was killed (SIGKILL), most often because memory ran out; {order.memory_hint} "
            f"(log: {order.log_path})"
        )
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    with order.log_path.open("rb") as log_file:
        log_file.seek(log_start_bytes)
        lines = log_file.read().decode("utf-8", errors="replace").strip().splitlines()
    last = lines[-1][:_SHOWN_CHARS] if lines else "it said nothing"
    return f"{order.module} {ended}: {last} (log: {order.log_path})"
