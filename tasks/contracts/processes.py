"""Finds a process again by what was written down of it."""

import psutil

_CLOCK_SECONDS = 2.0
"""A process's start time is computed from the boot time, which moves when the clock is set."""


def find_process(pid: int, started: float) -> psutil.Process | None:
    """Return the living process of a record, never another one that got its pid.

    Args:
        pid: process id.
        started: its start time when it was recorded, in seconds since the epoch.
    """
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started) < _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return None
    return process if is_same and is_alive(process) else None


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs; a zombie has ended, and in a container without an init it may stay for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
