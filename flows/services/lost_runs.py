"""Flow runs whose process is gone: Prefect goes on calling them Running, and they keep their place in the queue."""

import logging
import os
import re

import psutil

from flows.services.prefect_api import PrefectApi
from tasks.contracts.processes import find_process

log = logging.getLogger("llm_retrain.services")

_RUN_ID = "PREFECT__FLOW_RUN_ID"  # how a worker tells the process which run it executes
_PROCESS_TAG = re.compile(r"process-(\d+)-([\d.]+)")


def process_tag() -> str:
    """Return the tag that says which process executes a run that no worker started: pid and start time."""
    return f"process-{os.getpid()}-{psutil.Process().create_time():.2f}"


def close_lost_commands(api: PrefectApi) -> int:
    """Mark the unfinished runs of commands as crashed whose process of this machine is gone; at any time.

    Runs without the tag of a process, of code that somebody else calls, are left alone.

    Returns:
        How many runs were closed.
    """
    closed = 0
    for run in api.unfinished_runs_of_commands():
        processes = [found for tag in run["tags"] if (found := _PROCESS_TAG.fullmatch(tag))]
        if processes and not any(find_process(int(found[1]), float(found[2])) for found in processes):
            log.warning("Flow run %s lost its process; marked as crashed", run["name"])
            api.mark_crashed(run["id"], "its process ended without a word")
            closed += 1
    return closed


def close_lost_runs(api: PrefectApi, pool: str) -> int:
    """Mark the unfinished runs of a work pool as crashed if no process of this machine executes them.

    To be called while no worker of the pool runs: a stopped worker kills its runs and reports nothing. What dies
    otherwise is found later by the heartbeat automation.

    Returns:
        How many runs were closed.
    """
    living = _runs_with_a_process()
    lost = [run for run in api.unfinished_runs(pool) if run["id"] not in living]
    for run in lost:
        log.warning("Flow run %s lost its process; marked as crashed", run["name"])
        api.mark_crashed(run["id"], "its process was stopped together with the worker")
    return len(lost)


def _runs_with_a_process() -> set[str]:
    found: set[str] = set()
    for process in psutil.process_iter():
        try:
            run_id = process.environ().get(_RUN_ID)
        except (psutil.Error, OSError):
            continue  # another user's, or it has just ended: no run of ours
        if run_id is not None:
            found.add(run_id)
    return found
