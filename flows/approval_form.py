"""Bring a version that waits for a person before one, and say of it what became of that.

The form is a run of the deployment `approve/by-hand`. What is shown, in Prefect and on the version's page in MLflow,
follows what the ledger says: a server that does not answer is a warning, never the end of what was decided.
"""

import logging
from typing import Any, cast

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from flows.services import prefect_api_url
from tasks.contracts.config import RegistrySection, RetrainConfig, chosen_settings
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.registry.approvals import Request, open_request
from tasks.registry.versions import find_version, note_approval

log = logging.getLogger("llm_retrain.approval")

DEPLOYMENT = "approve/by-hand"
_NO_ANSWER = (httpx.HTTPError, PrefectException)


def ask_in_prefect(request: Request, config: RetrainConfig) -> str:
    """Start the run that asks, once for each request, and return its id; empty if there is no deployment to start.

    Without one, as before the first `llm-retrain up`, the command line is left to decide by; `up` and the next run ask
    again. The same holds, with a warning, for a Prefect server that refuses: the version waits all the same. Where the
    run that asked has ended without an answer, as one that was cancelled, another one is started.

    Args:
        request: what is asked.
        config: where the version is registered and served.
    """
    parameters = {"version": request.version, "request": request.key, "config": chosen_settings(config)}
    how: dict[str, Any] = {"timeout": 0, "as_subflow": False, "tags": [_tag(request)]}
    how["flow_run_name"] = f"version-{request.version}-waits"
    key, run = request.key, None
    try:
        while run is None or (run.state is not None and run.state.is_final()):
            run = cast("FlowRun", run_deployment(DEPLOYMENT, parameters=parameters, idempotency_key=key, **how))
            key = f"{request.key}-{run.id}"
    except ObjectNotFound:
        log.info("There is no deployment %s to ask in; llm-retrain up makes it", DEPLOYMENT)
        return ""
    except _NO_ANSWER as error:
        problem = "Prefect did not bring version %d before anybody; up and the next run ask again: %s"
        log.warning(problem, request.version, error)
        return ""
    return str(run.id)


def ask_again(home: Home, config: RetrainConfig) -> None:
    """Bring what waits before a person, where this home has a Prefect server: a request can be older than that."""
    request, api = open_request(home, config.registry.model_name), prefect_api_url(home)
    if request is not None and api is not None:
        with temporary_settings({PREFECT_API_URL: api}):
            ask_in_prefect(request, config)


def say_decided(request: Request, why: str, registry: RegistrySection, home: Home) -> None:
    """Write on the version's page what became of its request, and end the runs that still ask for a decision.

    Whoever fills in a form that could not be closed is told that it is too late.

    Args:
        request: what was asked.
        why: what became of it.
        registry: where the version is registered.
        home: the state directory.
    """
    write_on_its_page(request.version, why, registry, home)
    close_form(request, why)


def write_on_its_page(version: int, note: str, registry: RegistrySection, home: Home) -> None:
    """Write on a version's page in MLflow what a person is asked, or has decided, about it."""
    from mlflow.exceptions import MlflowException

    try:
        note_approval(find_version(registry, version, home), note, registry, home)
    except (MlflowException, RegistryError) as error:
        log.warning("The page of version %d in MLflow does not say %r: %s", version, note, error)


def close_form(request: Request, why: str) -> None:
    """End the runs that still ask, or are about to, for a decision that was made elsewhere."""
    try:
        _close(request, why)
    except _NO_ANSWER as error:
        log.warning("The form on version %d may still be open in Prefect: %s", request.version, error)


def _close(request: Request, why: str) -> None:
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(request)]))):
            is_this_one = str(run.id) == str(flow_run.id)
            if run.state is not None and not run.state.is_final() and not is_this_one:
                client.set_flow_run_state(run.id, Cancelled(name="Decided", message=why), force=True)


def _tag(request: Request) -> str:
    return f"request-{request.key[:12]}"
