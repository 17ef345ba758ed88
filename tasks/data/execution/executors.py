"""Jobs of the data stage over several processes here, or over the workers of a Ray or Dask cluster.

A job is JSON facts and writes files; its result is JSON facts. Where it runs changes no result. On a cluster the state
directory must be a file system that every worker sees.
"""

import os
from pathlib import Path

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.worker import WorkerOrder
from tasks.data.execution.cluster import run_on_cluster
from tasks.data.execution.jobs import Done, Job, Result, function_of, largest_first, versions_here
from tasks.data.execution.process_pool import run_in_processes

SMALL_BYTES = 4 << 20
"""Less input than this is worked on at once: a second process takes a second to start."""


def run_jobs(
    work: str, jobs: list[Job], sizes: list[int], execution: ExecutionSection, log: Path, done: Done
) -> list[Result]:
    """Run a job each and return their results in the order of `jobs`.

    The first failure, of a job or of `done`, ends the others.

    Args:
        work: "module:function" of the function that takes a job and returns its result.
        jobs: what it is called with.
        sizes: bytes a job reads; the largest begins first.
        execution: where they run.
        log: where worker processes write what they say beside their results.
        done: called for each finished job, in the caller's thread.

    Raises:
        LlmRetrainError: a job failed, with its own class and sentence.
        DataError: a job failed of anything else, in another process.
        EnvironmentProblem: the library of the cluster is not installed, or the cluster does not answer or work.
    """
    if execution.kind != "local":
        spec = {"work": work, "jobs": jobs, "order": largest_first(sizes), "versions": versions_here()}
        spec |= execution.model_dump()
        asking = WorkerOrder(
            "tasks.data.execution.cluster_process", spec, log, EnvironmentProblem, "give it more memory"
        )
        return run_on_cluster(asking, execution, len(jobs), done)
    processes = min(execution.processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1 or sum(sizes) < SMALL_BYTES:
        return _here(work, jobs, done)
    order = WorkerOrder(
        "tasks.data.execution.process", {"work": work}, log, DataError, "lower data.execution.processes"
    )
    return run_in_processes(order, jobs, sizes, processes, done)


def _here(work: str, jobs: list[Job], done: Done) -> list[Result]:
    function, results = function_of(work), list[Result]()
    for number, job in enumerate(jobs):
        results.append(function(job))
        done(len(results), number, results[-1])
    return results
