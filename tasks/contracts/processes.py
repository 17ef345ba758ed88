"""Finds a process again by what was written down of it."""

from pathlib import Path

import psutil

_CLOCK_SECONDS = 2.0
"""A process's start time is computed from the boot time, which moves when the clock is set."""
_START_TICK = 19
"""Of the fields after the name in /proc/PID/stat (proc(5) counts it as the 22nd of all)."""


def start_mark(pid: int) -> str | None:
    """Return what no other process of that pid has, before or after, however the clock is set.

    Returns:
        The boot and the tick of it at which the process began; None if there is no such process, or no Linux.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot}:{fields[_START_TICK]}"


def find_process(pid: int, started: float, mark: str | None = None) -> psutil.Process | None:
    """Return the living process of a record, never another one that got its pid.

    Args:
        pid: process id.
        started: its start time when it was recorded, in seconds since the epoch.
        mark: its `start_mark` when it was recorded, if there was one; then the start time does not matter.
    """
    try:
        process = psutil.Process(pid)
        now = start_mark(pid) if mark else None
        is_same = now == mark if now else abs(process.create_time() - started) < _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return None
    return process if is_same and is_alive(process) else None


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs; a zombie has ended, and in a container without an init it may stay for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
