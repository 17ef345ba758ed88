"""Peak memory of a command and of all processes it starts, read from /proc while they run.

`ru_maxrss` would not do: the kernel carries it over fork and exec, so that a small worker of a large parent has the
parent's peak. `VmHWM` is that of the program that runs now. The kernel keeps it; a sample can only miss what a
process adds in the last moment of its life.
"""

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INTERVAL_SECONDS = 0.05


@dataclass
class Peak:
    """Peaks of resident memory in MB (2^20 bytes).

    Attributes:
        all_mb: the largest sum of the peaks of processes that lived at one time: what they had together at most, or
            more, as pages that several share count for each and their peaks need not fall together.
        own_mb: of the command's own process.
        child_mb: of the largest process it started; 0: it started none.
    """

    all_mb: float = 0.0
    own_mb: float = 0.0
    child_mb: float = 0.0


def run_watched(command: list[str], environment: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], Peak]:
    """Run a command to its end; return what it printed, and its peak memory."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    peak, ended = Peak(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, ended))
    watcher.start()
    try:
        out, err = process.communicate()
    finally:
        ended.set()
        watcher.join()
    return subprocess.CompletedProcess(command, process.returncode, out, err), peak


def _watch(pid: int, peak: Peak, ended: threading.Event) -> None:
    before: set[int] = set()
    while not ended.wait(_INTERVAL_SECONDS):
        found = {one: high for one in _tree(pid) if (high := _high_water_mb(one))}
        # A process counts when it is seen again: between vfork and exec it still is its parent.
        settled = {one: high for one, high in found.items() if one in before}
        before = set(found)
        peak.all_mb = max(peak.all_mb, sum(settled.values()))
        peak.own_mb = max(peak.own_mb, settled.pop(pid, 0.0))
        peak.child_mb = max([peak.child_mb, *settled.values()])


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return
    for child in children:
        yield from _tree(child)


def _high_water_mb(pid: int) -> float:
    """Return the peak of a process's resident memory; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
