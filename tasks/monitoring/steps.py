"""The Prefect tasks of the monitoring stage, and the event that starts a retraining."""

import html
import logging
import re

import httpx
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.schemas.events import Resource
from prefect.settings import PREFECT_API_URL

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import MonitorConfig
from tasks.contracts.home import Home
from tasks.monitoring.drift import DriftVerdict, detect_drift
from tasks.monitoring.requests import RequestWindow, read_recent_requests, read_training_prompts, request_source
from tasks.monitoring.watermark import judged_until

log = logging.getLogger("llm_retrain.monitoring")

DRIFT_EVENT = "llm-retrain.drift.detected"
_NOT_MARKED = "the same requests are judged again by the next monitor"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()|~])")


@task(name="read requests", cache_policy=NO_CACHE)
def read_requests(config: MonitorConfig, home: Home) -> RequestWindow:
    """Read the most recent requests that no drifted verdict has judged yet."""
    mark = judged_until(request_source(config, home), config.serving.model_name, home)
    window = read_recent_requests(config, home, mark)
    log.info("%d requests read from %s", len(window.requests), window.source)
    if window.malformed_lines:
        log.warning("%d lines of %s hold no readable request", window.malformed_lines, window.source)
    return window


@task(name="detect drift", cache_policy=NO_CACHE)
def detect_drift_task(window: RequestWindow, champion: RegisteredVersion, config: MonitorConfig) -> DriftVerdict:
    """Compare the requests with the champion's training rows and show the verdict in Prefect."""
    training_prompts = read_training_prompts(champion.dataset_path)
    verdict = detect_drift([request.text for request in window.requests], training_prompts, config)
    log.info("Version %d of %s: %s", champion.version, champion.name, verdict.reason)
    create_markdown_artifact(
        key="drift-verdict",
        markdown=verdict_markdown(verdict, champion, window),
        description=f"Requests against the training rows of version {champion.version}",
    )
    return verdict


def emit_drift_event(verdict: DriftVerdict, model_name: str, version: int) -> bool:
    """Send the event that the retrain deployment's trigger listens to, and wait until the server has it.

    Not through `prefect.events.emit_event`, which returns when the event is in a queue: what is lost from there would
    never be sent again, for its requests count as judged.

    Args:
        verdict: one that drifted.
        model_name: registered model; its resource is `llm-retrain.model.NAME`.
        version: the champion that was judged.

    Returns:
        False if no server took the event; the log says why.
    """
    if not PREFECT_API_URL.value():  # then the flow runs on a temporary server, which starts nothing
        log.warning("No Prefect server runs that could start a retraining (llm-retrain up); %s", _NOT_MARKED)
        return False
    event = Event(
        event=DRIFT_EVENT,
        resource=Resource(
            {"prefect.resource.id": f"llm-retrain.model.{model_name}", "prefect.resource.name": model_name}
        ),
        payload={
            "auc": verdict.auc,
            "p_value": verdict.p_value,
            "requests": verdict.requests,
            "reason": verdict.reason,
            "version": version,
        },
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except httpx.HTTPError as error:
        log.warning("Prefect did not take the drift event (%s); %s", error, _NOT_MARKED)
        return False
    return True


def verdict_markdown(verdict: DriftVerdict, champion: RegisteredVersion, window: RequestWindow) -> str:
    """Write a verdict for a person, with everything that comes from outside escaped."""
    compared = "Drift" if verdict.drifted else "No drift"
    lines = [f"# {'No verdict' if verdict.p_value is None else compared}", "", _escaped(verdict.reason), ""]
    facts = {
        "Champion": f"{champion.name} version {champion.version}",
        "Requests": f"{len(window.requests)} read, {verdict.requests} distinct, from {window.source}",
        "Training prompts": f"{verdict.training_rows} distinct",
        "Lines without a readable request": str(window.malformed_lines),
        "Words that speak for the requests": ", ".join(verdict.top_features) or "none",
    }
    return "\n".join(lines + [f"- {name}: {_escaped(fact)}" for name, fact in facts.items()]) + "\n"


def _escaped(text: str) -> str:
    return html.escape(_MARKDOWN.sub(r"\\\1", " ".join(text.split())))
