"""Jobs over the workers of a Ray or Dask cluster, which a process of its own talks to.

The libraries wait minutes, or for ever, for an address where something else answers. In a process of their own that can
be ended, and what they print goes to the log.
"""

import importlib.util
import selectors
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.worker import Worker, WorkerOrder
from tasks.data.execution.jobs import Done, Result

PORT_SECONDS = 5.0
"""How long a port may take to accept a connection."""
ANSWER_SECONDS = 30.0
"""How long a cluster may take to answer once its library is loaded."""

_WAKE_SECONDS = 1.0
_PACKAGES = {"ray": "ray", "dask": "distributed"}
_SCHEMES = {"ray": ("", "ray"), "dask": ("", "tcp", "tls", "ws", "wss", "ucx")}
_EXPECTED = {"ray": "HOST:6379, ray://HOST:10001 or auto", "dask": "tcp://HOST:8786"}


def run_on_cluster(order: WorkerOrder, execution: ExecutionSection, jobs: int, done: Done) -> list[Result]:
    """Run jobs on a cluster and return their results in the order of the jobs.

    Args:
        order: starts the process that talks to the cluster.
        execution: which cluster.
        jobs: how many jobs the order holds.
        done: called for each finished job.

    Raises:
        LlmRetrainError: a job failed.
        EnvironmentProblem: the library is not installed, no cluster answers at the address, or its workers do not work.
    """
    if importlib.util.find_spec(_PACKAGES[execution.kind]) is None:
        raise EnvironmentProblem(
            f"data.execution.kind is '{execution.kind}', which needs: pip install 'llm-retrain[{execution.kind}]'"
        )
    if execution.address and (execution.kind, execution.address) != ("ray", "auto"):
        _check_port(execution)
    results: dict[int, Result] = {}
    deadline: float | None = None
    with Worker(order) as worker, selectors.DefaultSelector() as selector:
        worker.end_input()
        selector.register(worker, selectors.EVENT_READ)
        while not worker.has_ended:
            events: list[dict[str, Any]] = worker.read() if selector.select(_WAKE_SECONDS) else []
            for event in events:
                if event["event"] == "result":
                    results[event["job"]] = event["result"]
                    done(len(results), event["job"], event["result"])
                elif event["event"] == "asking" and execution.address:
                    deadline = time.monotonic() + ANSWER_SECONDS
                elif event["event"] == "connected":
                    deadline = None
            if deadline is not None and time.monotonic() > deadline:
                raise EnvironmentProblem(_no_answer(execution, f"no answer within {ANSWER_SECONDS:g} seconds"))
        failure = worker.failure()
    if failure is not None:
        raise failure
    return [results[number] for number in range(jobs)]


def _check_port(execution: ExecutionSection) -> None:
    """Refuse an address where nothing listens before a library tries it again and again."""
    scheme, _, place = execution.address.rpartition("://")
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if scheme not in _SCHEMES[execution.kind] or not host or not port:
        raise EnvironmentProblem(
            f"data.execution.address is {execution.address!r}; expected {_EXPECTED[execution.kind]} "
            f"for data.execution.kind '{execution.kind}'"
        )
    try:
        socket.create_connection((host, port), timeout=PORT_SECONDS).close()
    except OSError as error:
        raise EnvironmentProblem(_no_answer(execution, str(error))) from error


def _no_answer(execution: ExecutionSection, reason: str) -> str:
    name = execution.kind.capitalize()
    return (
        f"data.execution.address is {execution.address!r}, where no {name} cluster answers ({reason}); check that it "
        f"runs, that this is the address of its scheduler ({_EXPECTED[execution.kind]}), and that both have one version"
    )
