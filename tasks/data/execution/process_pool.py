"""Jobs over worker processes on this machine: each takes the next one when it is free, the largest first.

One thread starts the workers, hears all of them and calls back, so whoever waits here is who is interrupted, and who a
Prefect task knows. However the waiting ends, no worker is left.
"""

import selectors
from contextlib import ExitStack

from tasks.contracts.worker import Worker, WorkerOrder
from tasks.data.execution.jobs import Done, Job, Result, largest_first

_WAKE_SECONDS = 1.0
"""Prefect ends a task that is not in the main thread by an exception, which a thread sees only between two waits."""


def run_in_processes(order: WorkerOrder, jobs: list[Job], sizes: list[int], processes: int, done: Done) -> list[Result]:
    """Run jobs in worker processes and return their results in the order of `jobs`.

    Args:
        order: starts a worker that says "free", takes a job and says its "result", until nothing more is sent.
        jobs: what the workers are sent.
        sizes: bytes a job reads.
        processes: how many workers to start.
        done: called for each finished job.

    Raises:
        LlmRetrainError: a worker failed; the others have been ended.
    """
    waiting = largest_first(sizes)
    results: dict[int, Result] = {}
    at_work: dict[Worker, int] = {}
    with selectors.DefaultSelector() as selector, ExitStack() as running:
        workers = [running.enter_context(Worker(order)) for _ in range(processes)]
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ, worker)
        try:
            while selector.get_map():
                for ready, _ in selector.select(_WAKE_SECONDS):
                    worker = ready.data
                    for event in worker.read():
                        if event["event"] == "result":
                            job = at_work.pop(worker)
                            results[job] = event["result"]
                            done(len(results), job, results[job])
                        elif event["event"] == "free" and waiting:
                            at_work[worker] = waiting.pop(0)
                            worker.send(jobs[at_work[worker]])
                        elif event["event"] == "free":
                            worker.end_input()
                    if worker.has_ended:
                        selector.unregister(worker)
                        _check_end(worker, order, worker in at_work)
        finally:
            for worker in workers:  # all are asked to end before one is waited for
                worker.terminate()
    return [results[number] for number in range(len(jobs))]


def _check_end(worker: Worker, order: WorkerOrder, was_at_work: bool) -> None:
    failure = worker.failure()
    if failure is not None:
        raise failure
    if was_at_work:
        raise order.error_type(f"{order.module} ended before its job was done (log: {order.log_path})")
