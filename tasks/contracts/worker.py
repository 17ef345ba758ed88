"""Work in a process of its own: running out of memory, a crash or a cancel takes the worker and not the flow.

The parent calls `run_worker("tasks.training.process", spec, …)`; the module's `__main__` calls `worker_main(run)`.
A worker says what happens as one JSON object a line on standard output; its standard error goes to a log file.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
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


def ignore_event(event: Event) -> None:
    """Listen to nothing."""


def run_worker(
    module: str,
    spec: dict[str, Any],
    log_path: Path,
    error_type: type[LlmRetrainError],
    listener: Listener = ignore_event,
) -> list[Event]:
    """Run a worker module to its end and return the events it said.

    Args:
        module: dotted name of the module to run.
        spec: JSON facts for the worker's `run`.
        log_path: where its standard error is appended.
        error_type: raised when the worker fails.
        listener: called with each event as it is said.

    Raises:
        LlmRetrainError: of `error_type`; with the worker's own sentence, or with how it ended and where its log is.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="llm-retrain-") as folder, log_path.open("a") as log_file:
        spec_path = Path(folder) / "spec.json"
        spec_path.write_text(json.dumps(spec), encoding="utf-8")
        with _process(module, spec_path, log_file) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event: Event = json.loads(line)
                listener(event)
                events.append(event)
            status = process.wait()
    if status != 0:
        said = next((event["message"] for event in events if event["event"] == "error"), None)
        raise error_type(said or _explain_exit(module, status, log_path))
    return events


def worker_main(run: Callable[[dict[str, Any]], None]) -> None:
    """Be the worker: read the spec named on the command line, call `run`, and exit with its outcome."""
    # Linux sends this when the parent dies, even by SIGKILL: no work goes on that nobody will read.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Events own standard output; a library that prints there must not break the protocol.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _events.append(events)
    try:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except LlmRetrainError as error:
        say("error", message=str(error))
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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log_file, text=True, cwd=PROJECT_ROOT)
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


def _explain_exit(module: str, status: int, log_path: Path) -> str:
    if status == -signal.SIGKILL:
        return (
            f"{module} was killed (SIGKILL), most often because memory ran out; "
            "lower training.batch_rows or training.max_length_tokens"
        )
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return f"{module} ended with status {status}: {lines[0] if lines else 'it said nothing'} (log: {log_path})"
