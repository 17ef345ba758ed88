"""Jobs of the data stage over several processes here, or over the workers of a Ray or Dask cluster.

A job is JSON facts and writes files; its result is JSON facts. Where it runs changes no result. On a cluster the state
directory must be a file system that every worker sees.
"""

import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.worker import Event, run_worker

Job = dict[str, Any]
Result = dict[str, Any]
Done = Callable[[int], None]

SMALL_BYTES = 4 << 20
"""Less input than this is worked on at once: a second process takes a second to start."""

_MEMORY_HINT = "lower data.execution.processes"


def run_jobs(
    work: str, jobs: list[Job], sizes: list[int], execution: ExecutionSection, log: Path, done: Done
) -> list[Result]:
    """Run a job each and return their results in the order of `jobs`.

    Args:
        work: "module:function" of the function that takes a job and returns its result.
        jobs: what it is called with.
        sizes: bytes a job reads, which say how to share them out.
        execution: where they run.
        log: where worker processes write what they say beside their results.
        done: called with the number of finished jobs.

    Raises:
        DataError: a job failed; with its own sentence.
        EnvironmentProblem: the library of the cluster is not installed, or the cluster does not answer.
    """
    if execution.kind == "ray":
        return _on_ray(work, jobs, execution, done)
    if execution.kind == "dask":
        return _on_dask(work, jobs, execution, done)
    processes = min(execution.processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1 or sum(sizes) < SMALL_BYTES:
        return _here(work, jobs, done)
    return _in_processes(work, jobs, shares(sizes, processes), log, done)


def shares(sizes: list[int], processes: int) -> list[list[int]]:
    """Share jobs out so that each process has about as much to read: the largest first, to whoever has least."""
    loads = [(0, number, []) for number in range(processes)]  # type: list[tuple[int, int, list[int]]]
    for job in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        load, number, taken = min(loads)
        loads[number] = (load + sizes[job], number, [*taken, job])
    return [taken for _, _, taken in loads if taken]


def function_of(work: str) -> Callable[[Job], Result]:
    """Return the function that "module:function" names."""
    module, _, name = work.partition(":")
    function: Callable[[Job], Result] = getattr(importlib.import_module(module), name)
    return function


def _here(work: str, jobs: list[Job], done: Done) -> list[Result]:
    function, results = function_of(work), []
    for number, job in enumerate(jobs, 1):
        results.append(function(job))
        done(number)
    return results


def _in_processes(work: str, jobs: list[Job], parts: list[list[int]], log: Path, done: Done) -> list[Result]:
    """Give each process its jobs; the first failure is raised when all have ended."""
    results: dict[int, Result] = {}
    failures: list[BaseException] = []
    lock = threading.Lock()

    def listen(event: Event) -> None:
        if event["event"] == "result":
            with lock:
                results[event["job"]] = event["result"]
                done(len(results))

    def run(part: list[int]) -> None:
        spec = {"work": work, "jobs": {str(index): jobs[index] for index in part}}
        try:
            run_worker("tasks.data.process", spec, log, DataError, listen, _MEMORY_HINT)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(jobs))]


def _missing(kind: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"data.execution.kind is '{kind}', which needs: pip install 'llm-retrain[{kind}]'")


def _on_ray(work: str, jobs: list[Job], execution: ExecutionSection, done: Done) -> list[Result]:
    try:
        import ray
    except ImportError as error:
        raise _missing("ray") from error
    was_there = ray.is_initialized()
    if not was_there:
        ray.init(address=execution.address or None, num_cpus=None if execution.address else execution.processes or None)
    try:
        remote = ray.remote(function_of(work))
        waiting = {remote.remote(job): index for index, job in enumerate(jobs)}
        results: dict[int, Result] = {}
        while waiting:
            [ready], _ = ray.wait(list(waiting), num_returns=1)
            results[waiting.pop(ready)] = ray.get(ready)
            done(len(results))
    except ray.exceptions.RayTaskError as error:
        raise DataError(str(error.cause)) from error
    finally:
        if not was_there:
            ray.shutdown()
    return [results[index] for index in range(len(jobs))]


def _on_dask(work: str, jobs: list[Job], execution: ExecutionSection, done: Done) -> list[Result]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise EnvironmentProblem(
            "data.execution.kind is 'dask', which needs: pip install 'llm-retrain[dask]'"
        ) from error
    own = {"n_workers": execution.processes or os.cpu_count(), "threads_per_worker": 1, "dashboard_address": None}
    with Client(execution.address) if execution.address else Client(**own) as client:
        futures = client.map(function_of(work), jobs, pure=False)
        places = {future.key: index for index, future in enumerate(futures)}
        results: dict[int, Result] = {}
        for future in as_completed(futures):
            results[places[future.key]] = future.result()
            done(len(results))
    return [results[index] for index in range(len(jobs))]
