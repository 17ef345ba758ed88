"""Flow runs whose process is gone: Prefect goes on calling them Running, and they keep their place in the queue."""

import logging

import psutil

from flows.services.prefect_api import PrefectApi

log = logging.getLogger("llm_retrain.services")

_RUN_ID = "PREFECT__FLOW_RUN_ID"  # how a worker tells the process which run it executes


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
