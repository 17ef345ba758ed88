"""Work in a process of its own: running out of memory, a crash or a cancel takes the worker and not the flow.

The parent calls `run_worker("tasks.training.process", spec, …)`; the module's `__main__` calls `worker_main(run)`.
A worker says what happens as one JSON object a line on standard output; its standard error goes to a log file.
Whatever it fails of, the parent raises one sentence: the worker's own, or what ended it and where the log is.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tasks.contracts.errors import LlmRetrainError
from tasks.contracts.home import PROJECT_ROOT

Event = dict[str, Any]
Listener = Callable[[Event], None]

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10.0
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")  # Python's, and what torch raises for a GPU
_SHOWN_CHARS = 400


def ignore_event(event: Event) -> None:
    """Listen to nothing."""


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
    log_path.parent.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="llm-retrain-") as folder, log_path.open("a", encoding="utf-8") as log_file:
        log_start_bytes = os.fstat(log_file.fileno()).st_size
        spec_path = Path(folder) / "spec.json"
        spec_path.write_text(json.dumps(spec), encoding="utf-8")
        with _process(module, spec_path, log_file) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = _event_in(line)
                if event is None:
                    log_file.write(line)
                    log_file.flush()
                    continue
                listener(event)
                events.append(event)
            status = process.wait()
    if status != 0:
        said = next((event for event in events if event["event"] == "error"), None)
        if said is None:
            raise error_type(_explain_exit(module, status, log_path, log_start_bytes, memory_hint))
        raise error_type(_explain_error(module, said, log_path, memory_hint))
    return events


def worker_main(run: Callable[[dict[str, Any]], None]) -> None:
    """Be the worker: read the spec named on the command line, call `run`, and exit with its outcome."""
    # Linux sends this when the parent dies, even by SIGKILL: no work goes on that nobody will read.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Events own standard output; a library that prints there must not break the protocol.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _events.append(events)
    try:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except LlmRetrainError as error:
        say("error", message=str(error))
        sys.exit(1)
    except Exception as error:  # any other failure too must reach the parent as a sentence; the log keeps the rest
        traceback.print_exc()
        say("error", message=" ".join(str(error).split()), type=type(error).__name__)
        sys.exit(1)


_events: list[IO[str]] = []


def say(event: str, **facts: Any) -> None:
    """Say one event to the parent; outside of a worker nobody listens."""
    for stream in _events:
        stream.write(json.dumps({"event": event, **facts}) + "\n")


@contextmanager
def _process(module: str, spec_path: Path, log_file: IO[str]) -> "Iterator[subprocess.Popen[str]]":
    """Start the worker, and end it however this block is left: a cancelled flow leaves nothing running."""
    command = [sys.executable, "-m", module, str(spec_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=log_file,
        cwd=PROJECT_ROOT,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _event_in(line: str) -> Event | None:
    """Read a line of a worker's standard output; None if it is no event, but what some library printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _explain_error(module: str, said: Event, log_path: Path, memory_hint: str) -> str:
    """Spell the worker's "error" event: a sentence of ours as it is, any other exception with its type and the log."""
    message, kind = said["message"], said.get("type")
    if kind is None:
        return str(message)
    if kind in _OUT_OF_MEMORY:
        return f"{module} ran out of memory ({kind}); {memory_hint} (log: {log_path})"
    shown = f"{kind}: {message[:_SHOWN_CHARS]}" if message else kind
    return f"{module} failed with {shown} (log: {log_path})"


def _explain_exit(module: str, status: int, log_path: Path, log_start_bytes: int, memory_hint: str) -> str:
    """Explain an end without words: the signal, or the last line that this very run left in the log."""
    if status == -signal.SIGKILL:
        return f"{module} was killed (SIGKILL), most often because memory ran out; {memory_hint} (log: {log_path})"
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    with log_path.open("rb") as log_file:
        log_file.seek(log_start_bytes)
        lines = log_file.read().decode("utf-8", errors="replace").strip().splitlines()
    last = lines[-1][:_SHOWN_CHARS] if lines else "it said nothing"
    return f"{module} {ended}: {last} (log: {log_path})"
