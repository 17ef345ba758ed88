"""Up, down, and what is running: Prefect server, MLflow server, Triton, and the worker that executes deployments."""

import logging
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

from flows.services.daemon import Daemon, running_daemon, start_daemon, stop_daemon, wait_until_ready
from flows.services.environment import MLFLOW_PORT, PREFECT_PORT, api_url, port_from_environment, service_environment
from flows.services.lost_runs import close_lost_commands, close_lost_runs
from flows.services.prefect_api import PrefectApi, answers
from flows.services.registration import WORK_POOL, deploy, prepare_work_pool
from flows.services.states import ServiceState
from tasks.contracts.config import RetrainConfig, ServingSection
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home
from tasks.contracts.locks import held_lock
from tasks.serving.ports import refuse_port_in_use
from tasks.serving.server_record import read_record
from tasks.serving.tritonserver import (
    SLOW_SECONDS,
    ensure_triton,
    running_triton,
    stop_tritonserver,
    why_triton_cannot_run,
)

log = logging.getLogger("llm_retrain.services")

_WORKER = "llm-retrain"
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0


def up(home: Home, config: RetrainConfig | None = None, timeout_seconds: float = _START_SECONDS) -> list[ServiceState]:
    """Start what is not running, register the deployments, and wait until all of it is ready.

    Args:
        home: its state directory.
        config: its serving section says where Triton listens; what it sets differently from the defaults becomes a
            parameter of the deployments, so that runs of the schedule use it.
        timeout_seconds: time the servers have to become ready, and then the worker.

    Returns:
        A state for each service, noting whether it was started or had been running already.

    Raises:
        EnvironmentProblem: a port is in use, or a service did not become ready; what this call started is stopped.
        ServingError: Triton does not start.
    """
    config = config or RetrainConfig()
    with held_lock(home.pids / "services.lock"):  # two terminals take turns
        _refuse_ports_in_use(home, config.serving)
        with ExitStack() as undo:
            states = _Startup(home, undo).start_all(config, timeout_seconds)
            undo.pop_all()
    return states


def down(home: Home, timeout_seconds: float = _STOP_SECONDS) -> list[ServiceState]:
    """Stop the services of this home in reverse order, with everything they started.

    Returns:
        A state for each service, noting whether it was running.
    """
    with held_lock(home.pids / "services.lock"):  # two terminals take turns
        stopped = {"worker": stop_daemon(home, "worker", timeout_seconds)}
        api = prefect_api_url(home)
        if api is not None:
            try:
                close_lost_runs(PrefectApi(api), WORK_POOL)
            except EnvironmentProblem as problem:  # the next `up` does it; the rest must stop all the same
                log.warning("Flow runs that were stopped may still be called running: %s", problem)
        stopped |= {
            "triton": stop_tritonserver(home, timeout_seconds),
            "mlflow": stop_daemon(home, "mlflow", timeout_seconds),
            "prefect": stop_daemon(home, "prefect", timeout_seconds),
        }
    return [ServiceState(name, "stopped", note="" if was else "was not running") for name, was in stopped.items()]


def service_states(home: Home) -> list[ServiceState]:
    """Ask each service of this home whether it answers."""
    prefect, mlflow, worker = (running_daemon(home, name) for name in ("prefect", "mlflow", "worker"))
    states = [
        ServiceState("prefect", "stopped")
        if prefect is None
        else _state(prefect, _pages(prefect), _api_of(prefect).is_healthy()),
        ServiceState("mlflow", "stopped")
        if mlflow is None
        else _state(mlflow, _pages(mlflow), answers(f"{_pages(mlflow)}/health")),
        _triton_state(home),
    ]
    if worker is None:
        return [*states, ServiceState("worker", "stopped")]
    is_online = (
        prefect is not None
        and states[0].state == "running"
        and _api_of(prefect).worker_is_online(WORK_POOL, _WORKER, worker.started)
    )
    return [*states, _state(worker, f"work pool {WORK_POOL}", is_online)]


def prefect_api_url(home: Home) -> str | None:
    """Return the API of this home's Prefect server; None if it is not running or does not answer."""
    prefect = running_daemon(home, "prefect")
    return _api_of(prefect).url if prefect is not None and _api_of(prefect).is_healthy() else None


class _Startup:
    """One call of `up`: what it starts is stopped again by `undo`, unless all of it became ready."""

    def __init__(self, home: Home, undo: ExitStack) -> None:
        self.home, self.undo = home, undo
        self.started: set[str] = set()
        running = running_daemon(home, "prefect")
        self.prefect_port = running.port if running and running.port else port_from_environment(PREFECT_PORT)
        self.environment = service_environment(home, self.prefect_port)

    def start_all(self, config: RetrainConfig, timeout_seconds: float) -> list[ServiceState]:
        """Start the servers side by side, then what needs them."""
        prefect = self._ensure("prefect", self.prefect_port)
        mlflow = self._ensure("mlflow", port_from_environment(MLFLOW_PORT))
        triton = self._ensure_triton(config.serving)
        deadline = time.monotonic() + timeout_seconds
        api = _api_of(prefect)
        wait_until_ready(prefect, api.is_healthy, deadline, (mlflow,))
        prepare_work_pool(api)
        close_lost_commands(api)
        if running_daemon(self.home, "worker") is None:
            close_lost_runs(api, WORK_POOL)
        worker = self._ensure("worker")
        count = deploy(api, self.home, self.environment, config)
        wait_until_ready(mlflow, lambda: answers(f"{_pages(mlflow)}/health"), deadline)
        deadline = time.monotonic() + timeout_seconds
        wait_until_ready(worker, lambda: api.worker_is_online(WORK_POOL, _WORKER, worker.started), deadline)
        # The server calls a deployment ready when a worker has asked for its runs.
        wait_until_ready(worker, lambda: all(one["status"] == "READY" for one in api.deployments(WORK_POOL)), deadline)
        return [
            _state(prefect, _pages(prefect), True, self._told(prefect)),
            _state(mlflow, _pages(mlflow), True, self._told(mlflow)),
            triton,
            _state(worker, f"work pool {WORK_POOL}", True, f"{self._told(worker)}, serves {count} deployments"),
        ]

    def _ensure(self, name: str, port: int | None = None) -> Daemon:
        """Return the running process, or start it."""
        daemon = running_daemon(self.home, name)
        if daemon is None:
            log.info("Starting %s", name)
            daemon = start_daemon(self.home, name, _command(self.home, name, port), self.environment, port)
            self.started.add(name)
            self.undo.callback(stop_daemon, self.home, name)
        return daemon

    def _ensure_triton(self, serving: ServingSection) -> ServiceState:
        reason = why_triton_cannot_run()
        if reason is not None:
            log.warning("Triton is not started: %s", reason)
            return ServiceState("triton", "unavailable", note=reason)
        was_running = running_triton(self.home, SLOW_SECONDS) is not None
        if not was_running:
            log.info("Starting triton")
            self.undo.callback(stop_tritonserver, self.home)
        ensure_triton(self.home, serving)
        return replace(_triton_state(self.home), note="already running" if was_running else "started")

    def _told(self, daemon: Daemon) -> str:
        return "started" if daemon.name in self.started else "already running"


def _command(home: Home, name: str, port: int | None) -> list[str]:
    python = [sys.executable, "-m"]
    if name == "prefect":
        home.prefect.mkdir(parents=True, exist_ok=True)
        return [*python, "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    if name == "worker":
        return [*python, "prefect", "worker", "start", "--type", "process", "--pool", WORK_POOL, "--name", _WORKER]
    home.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
    places = {
        "--backend-store-uri": f"sqlite:///{home.mlflow_database}",
        "--default-artifact-root": home.mlflow_artifacts.as_uri(),
        "--artifacts-destination": home.mlflow_artifacts.as_uri(),
    }
    options = [part for place in places.items() for part in place]
    return [*python, "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options]


def _triton_state(home: Home) -> ServiceState:
    record = read_record(home)
    if record is None:
        return ServiceState("triton", "stopped")
    address = f"http://127.0.0.1:{record.address.http_port}"
    is_live = running_triton(home) is not None
    log_file = str(home.logs / "triton.log")
    return ServiceState("triton", "running" if is_live else "not answering", address, record.pid, log=log_file)


def _refuse_ports_in_use(home: Home, serving: ServingSection) -> None:
    """Before anything is started: a service that runs has its port, and the others need theirs."""
    for name, variable in (("prefect", PREFECT_PORT), ("mlflow", MLFLOW_PORT)):
        port = port_from_environment(variable)
        if running_daemon(home, name) is None:
            refuse_port_in_use(port, variable)
    if read_record(home) is None:
        for key in ("http_port", "grpc_port", "metrics_port"):
            refuse_port_in_use(getattr(serving, key), f"serving.{key}")


def _state(daemon: Daemon, address: str, is_ready: bool, note: str = "") -> ServiceState:
    return ServiceState(daemon.name, "running" if is_ready else "not answering", address, daemon.pid, note, daemon.log)


def _pages(daemon: Daemon) -> str:
    """Where a browser reaches a server."""
    return f"http://127.0.0.1:{daemon.port}"


def _api_of(prefect: Daemon) -> PrefectApi:
    assert prefect.port is not None
    return PrefectApi(api_url(prefect.port))
