"""A process that outlives its starter: its pid file, its log, and a way to stop it with everything it started."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import PROJECT_ROOT, Home
from tasks.contracts.jsonl import canonical_json
from tasks.contracts.processes import find_process, is_alive, start_mark

log = logging.getLogger("llm_retrain.services")

_POLL_SECONDS = 0.3
_KILL_SECONDS = 10.0
_TAIL_LINES = 12
_TAIL_BYTES = 4_000


@dataclass(frozen=True)
class Daemon:
    """A process as its pid file records it.

    Attributes:
        name: what it is; also the stem of its pid file and of its log.
        pid: process id, and the id of the session it leads.
        started: seconds since the epoch; tells it from a later process with the same pid.
        port: the port it listens on at 127.0.0.1; None if it listens on none.
        log: its log file.
        log_start: where in the log this process began to write, in bytes.
        mark: tells it from any other process however the clock is set; None where there is no such thing.
    """

    name: str
    pid: int
    started: float
    port: int | None
    log: str
    log_start: int
    mark: str | None = None

    def process(self) -> psutil.Process | None:
        """Return the living process; None if it has ended."""
        return find_process(self.pid, self.started, self.mark)


def start_daemon(
    home: Home, name: str, command: list[str], environment: dict[str, str], port: int | None = None
) -> Daemon:
    """Start a process in a session of its own, in the project's directory, and record it."""
    home.logs.mkdir(parents=True, exist_ok=True)
    log_file = home.logs / f"{name}.log"
    with log_file.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    daemon = Daemon(name, process.pid, started, port, str(log_file), log_start, start_mark(process.pid))
    _write(home, daemon)
    return daemon


def running_daemon(home: Home, name: str) -> Daemon | None:
    """Return the recorded process; None if there is none, it has ended, or its pid is another process's by now."""
    try:
        daemon = Daemon(**json.loads(_pid_file(home, name).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # never started, or not a pid file
    return daemon if daemon.process() is not None else None


def wait_until_ready(
    daemon: Daemon, is_ready: Callable[[], bool], deadline: float, beside: tuple[Daemon, ...] = ()
) -> None:
    """Wait until a process says it is ready.

    Args:
        daemon: the process.
        is_ready: asks it once.
        deadline: on the clock of `time.monotonic`.
        beside: processes that start at the same time, so that one which ends is noticed at once.

    Raises:
        EnvironmentProblem: one of them ended, or the deadline passed; shows the end of the log.
    """
    while not is_ready():
        for one in (daemon, *beside):
            if one.process() is None:
                raise EnvironmentProblem(f"{one.name} ended while it started; its log {_tail(one)}")
        if time.monotonic() > deadline:
            raise EnvironmentProblem(
                f"{daemon.name} (pid {daemon.pid}) is not ready in time; try `llm-retrain down` and start again; "
                f"its log {_tail(daemon)}"
            )
        time.sleep(_POLL_SECONDS)


def stop_daemon(home: Home, name: str, timeout_seconds: float = 20.0) -> bool:
    """Stop a process and all that it started: SIGTERM, then SIGKILL for what is left after the timeout.

    Returns:
        Whether it was running.
    """
    daemon = running_daemon(home, name)
    leader = daemon.process() if daemon is not None else None
    if leader is not None:
        family = _family(leader)
        _signal(family, psutil.Process.terminate)
        _wait_for_end(family, timeout_seconds)
        # Who was born meanwhile has a parent in the family or is still in the session.
        left = [process for process in {*family, *_family(leader)} if is_alive(process)]
        if left:
            log.warning("%s: %d processes did not stop in %g s; killed", name, len(left), timeout_seconds)
            _signal(left, psutil.Process.kill)
            _wait_for_end(left, _KILL_SECONDS)
    _pid_file(home, name).unlink(missing_ok=True)
    return leader is not None


def _family(leader: psutil.Process) -> list[psutil.Process]:
    """The leader, its descendants, and what is left in its session of descendants whose parent has ended."""
    found = {leader}
    with suppress(psutil.NoSuchProcess):
        found.update(leader.children(recursive=True))
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader.pid:
                found.add(process)
    return list(found)


def _signal(processes: list[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            send(process)


def _wait_for_end(processes: list[psutil.Process], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _tail(daemon: Daemon) -> str:
    with Path(daemon.log).open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(daemon.log_start, file.tell() - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    return f"{daemon.log} ends with:\n" + "\n".join(lines) if lines else f"{daemon.log} is empty"


def _write(home: Home, daemon: Daemon) -> None:
    """Write the pid file whole or not at all: without it the process would be lost."""
    home.pids.mkdir(parents=True, exist_ok=True)
    path = _pid_file(home, daemon.name)
    working = path.with_suffix(f".{os.getpid()}")
    working.write_text(canonical_json(asdict(daemon)), encoding="utf-8")
    working.replace(path)


def _pid_file(home: Home, name: str) -> Path:
    return home.pids / f"{name}.pid"
