"""Bring a version that waits for a person before one: a run of the deployment `approve/by-hand`, which shows a form."""

import logging
from typing import Any, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from tasks.contracts.config import RetrainConfig, chosen_settings
from tasks.registry.approvals import Request

log = logging.getLogger("llm_retrain.approval")

DEPLOYMENT = "approve/by-hand"


def ask_in_prefect(request: Request, config: RetrainConfig) -> str:
    """Start the run that asks, once for each request, and return its id; empty if there is no deployment to start.

    Without one, as before the first `llm-retrain up`, the command line is left to decide by; `up` asks again.

    Args:
        request: what is asked.
        config: where the version is registered and served.
    """
    parameters = {"version": request.version, "request": request.key, "config": chosen_settings(config)}
    name = f"version-{request.version}-waits"
    how: dict[str, Any] = {"timeout": 0, "flow_run_name": name, "idempotency_key": request.key, "as_subflow": False}
    try:
        run = cast("FlowRun", run_deployment(DEPLOYMENT, parameters=parameters, **how))
    except ObjectNotFound:
        log.info("There is no deployment %s to ask in; llm-retrain up makes it", DEPLOYMENT)
        return ""
    return str(run.id)


def close_form(request: Request | None, why: str) -> None:
    """End the run that still asks for a decision that was made elsewhere.

    Args:
        request: what was asked; None if nothing was.
        why: what became of it, for the run's page.
    """
    if request is None:
        return
    with get_client(sync_client=True) as client:
        asks = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[request.key]))
        for run in client.read_flow_runs(flow_run_filter=asks):
            if run.state is not None and run.state.is_paused():
                client.set_flow_run_state(run.id, Cancelled(name="Decided", message=why), force=True)
