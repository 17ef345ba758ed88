"""The process that talks to a Ray or Dask cluster: sends the jobs, and says each result as it comes.

Jobs never raise there (`run_elsewhere`), so whatever a library raises is about the cluster, and is one sentence.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tasks.contracts.errors import EnvironmentProblem, LlmRetrainError
from tasks.contracts.worker import say, worker_main
from tasks.data.execution.jobs import run_elsewhere

_Outcomes = Iterator[tuple[int, dict[str, Any]]]
_SHOWN_CHARS = 300
_WORKER_SECONDS = 20
"""How long the first worker of a Dask cluster may take to be there."""


def run(spec: dict[str, Any]) -> None:
    """Run `spec["jobs"]` with the function that `spec["work"]` names.

    Args:
        spec: `work`, `jobs`, `order` (numbers of the jobs as they are begun), `versions` (which a worker must have),
            and `kind`, `address` and `processes` as in data.execution.

    Raises:
        LlmRetrainError: a job failed, or the cluster did.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a cluster of our own must be shut down
    outcomes = _on_ray(spec) if spec["kind"] == "ray" else _on_dask(spec)
    try:
        with closing(outcomes):  # type: ignore[type-var]
            for number, outcome in outcomes:
                _check(outcome, spec)
                say("result", job=number, result=outcome["result"])
    except LlmRetrainError:
        raise
    except Exception as error:  # of any of the libraries' many classes
        logging.getLogger("llm_retrain.data").exception("%s", _named(spec))
        said = " ".join(f"{type(error).__name__}: {error}".split())[:_SHOWN_CHARS]
        raise EnvironmentProblem(
            f"{_named(spec)} failed ({said}); check that its workers run, have memory, and have the versions of this "
            "machine (llm-retrain, Python and the library of the cluster)"
        ) from error


def _named(spec: dict[str, Any]) -> str:
    place = f"at data.execution.address {spec['address']!r}" if spec["address"] else "that data.execution.kind started"
    return f"the {spec['kind'].capitalize()} cluster {place}"


def _check(outcome: dict[str, Any], spec: dict[str, Any]) -> None:
    if "differs" in outcome:
        raise EnvironmentProblem(
            f"{_named(spec)} has {outcome['differs']}; expected the versions of this machine on every worker"
        )
    error = outcome.get("error")
    if error is None:
        return
    if error.get("type") == "FileNotFoundError":
        raise EnvironmentProblem(
            f"a worker of {_named(spec)} does not find a file ({error['message']}); expected the state directory "
            "(LLM_RETRAIN_HOME) and the sources at the same place on every worker"
        )
    say("error", **error)
    sys.exit(1)


def _on_ray(spec: dict[str, Any]) -> _Outcomes:
    import ray

    say("asking")
    own = {} if spec["address"] else {"num_cpus": spec["processes"] or None, "include_dashboard": False}
    try:
        ray.init(address=spec["address"] or "local", log_to_driver=False, **own)
        say("connected")
        remote = ray.remote(run_elsewhere)
        waiting = {
            remote.remote(spec["work"], spec["jobs"][number], spec["versions"]): number for number in spec["order"]
        }
        while waiting:
            [ready], _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(ready), ray.get(ready)
    finally:
        ray.shutdown()


def _on_dask(spec: dict[str, Any]) -> _Outcomes:
    from distributed import Client, as_completed

    say("asking")
    own = {"n_workers": spec["processes"] or os.cpu_count(), "threads_per_worker": 1, "dashboard_address": None}
    with Client(spec["address"]) if spec["address"] else Client(**own) as client:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        say("connected")
        futures = [
            client.submit(run_elsewhere, spec["work"], spec["jobs"][number], spec["versions"], pure=False)
            for number in spec["order"]
        ]
        places = {future.key: number for future, number in zip(futures, spec["order"], strict=True)}
        for future in as_completed(futures):
            yield places[future.key], future.result()


if __name__ == "__main__":
    worker_main(run)
