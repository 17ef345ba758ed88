"""Environment variables: what keeps the libraries quiet and local, and what the services are told."""

import os
import sys
from pathlib import Path

from flows.services.daemon import running_daemon
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home

PREFECT_PORT = "LLM_RETRAIN_PREFECT_PORT"
MLFLOW_PORT = "LLM_RETRAIN_MLFLOW_PORT"
_DEFAULT_PORTS = {PREFECT_PORT: 4200, MLFLOW_PORT: 5000}


def quiet_environment(home: Home | None = None) -> dict[str, str]:
    """Return the variables for a process that uses Prefect, MLflow or transformers; set them before importing these.

    They turn off telemetry, keep Prefect's state in the home, and send our log lines to Prefect with the run's own.
    `HF_HUB_OFFLINE` is not among them: a base model may come from a hub, and nothing else asks one.
    """
    home = home or Home.from_environment()
    no_proxy = _without_proxy()
    return {
        "DO_NOT_TRACK": "true",  # the word: Prefect does not read "1"
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,  # where both are set, this one is read
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the default of 20 is short for two busy cores
        "PREFECT_LOGGING_EXTRA_LOGGERS": "llm_retrain",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # our lines outside of a flow are no mistake
    }


def _without_proxy() -> str:
    """Return the hosts that are reached directly: the caller's and this machine."""
    spelled = (os.environ.get("no_proxy"), os.environ.get("NO_PROXY"), "127.0.0.1,localhost")
    hosts = (host.strip() for text in spelled for host in (text or "").split(","))
    return ",".join(dict.fromkeys(filter(None, hosts)))


def service_environment(home: Home, prefect_port: int) -> dict[str, str]:
    """Return the whole environment of a service: the caller's, quiet, with this home and this Prefect server."""
    environment = {
        **os.environ,
        **quiet_environment(home),
        "LLM_RETRAIN_HOME": str(home.root),
        "PREFECT_API_URL": api_url(prefect_port),
        # The server's pages ask for its API at this address, whatever `--port` says.
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        # By default any page open in a browser here may create a flow run, and with it run a command.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{prefect_port},http://localhost:{prefect_port}",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        # Nothing here uses MLflow's job queue, and it takes eight processes of 110 MB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "NO_COLOR": "1",
        "PREFECT_LOGGING_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }
    serving = os.environ.get("LLM_RETRAIN_SERVING_ENV")
    if serving:
        environment["LLM_RETRAIN_SERVING_ENV"] = str(Path(serving).expanduser().absolute())
    return environment


def port_from_environment(variable: str) -> int:
    """Return the port that `LLM_RETRAIN_PREFECT_PORT` or `LLM_RETRAIN_MLFLOW_PORT` names, or its default.

    Raises:
        EnvironmentProblem: it is not a port from 1024 to 65535.
    """
    text = os.environ.get(variable) or str(_DEFAULT_PORTS[variable])
    if not text.isascii() or not text.isdigit() or not 1024 <= int(text) <= 65_535:
        raise EnvironmentProblem(f"{variable} is {text!r}; expected a port from 1024 to 65535")
    return int(text)


def api_url(port: int) -> str:
    """Return the address of the Prefect API behind a port of this machine."""
    return f"http://127.0.0.1:{port}/api"


def mlflow_url(home: Home) -> str:
    """Return where the MLflow server of `llm-retrain up` listens, or will listen."""
    running = running_daemon(home, "mlflow")
    port = running.port if running and running.port else port_from_environment(MLFLOW_PORT)
    return f"http://127.0.0.1:{port}"
