"""The Prefect tasks of the monitoring stage, and the event that starts a retraining."""

import html
import logging
import re

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import MonitorConfig
from tasks.contracts.home import Home
from tasks.monitoring.drift import DriftVerdict, detect_drift
from tasks.monitoring.requests import RequestWindow, read_recent_requests, read_training_prompts, request_source
from tasks.monitoring.watermark import judged_until

log = logging.getLogger("llm_retrain.monitoring")

DRIFT_EVENT = "llm-retrain.drift.detected"
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
    """Emit the event that the retrain deployment's trigger listens to.

    `emit_event` logs its errors and raises none of them, so the verdict must be on record before.

    Args:
        verdict: one that drifted.
        model_name: registered model; its resource is `llm-retrain.model.NAME`.
        version: the champion that was judged.

    Returns:
        False if Prefect could not take the event.
    """
    event = emit_event(
        event=DRIFT_EVENT,
        resource={"prefect.resource.id": f"llm-retrain.model.{model_name}", "prefect.resource.name": model_name},
        payload={
            "auc": verdict.auc,
            "p_value": verdict.p_value,
            "requests": verdict.requests,
            "reason": verdict.reason,
            "version": version,
        },
    )
    if event is None:
        log.warning("The drift event was not taken by Prefect; the same requests are judged again by the next monitor")
    return event is not None


def verdict_markdown(verdict: DriftVerdict, champion: RegisteredVersion, window: RequestWindow) -> str:
    """Write a verdict for a person, with everything that comes from outside escaped."""
    lines = [f"# {'Drift' if verdict.drifted else 'No drift'}", "", _escaped(verdict.reason), ""]
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
