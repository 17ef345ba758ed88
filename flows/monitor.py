"""Compare what users ask with what the champion was trained on; on drift, emit the event that starts a retraining."""

from dataclasses import asdict
from typing import Any, cast

from prefect import flow
from prefect.states import Completed

from flows.log_lines import record_log_lines
from tasks.contracts.config import MonitorConfig
from tasks.contracts.home import Home
from tasks.monitoring.steps import detect_drift_task, emit_drift_event, read_requests
from tasks.monitoring.watermark import mark_judged
from tasks.registry.tracking import record_drift
from tasks.registry.versions import find_version_by_alias

_DEFAULTS = MonitorConfig()


@flow(name="monitor")
def monitor(config: MonitorConfig = _DEFAULTS) -> dict[str, Any]:
    """Judge the most recent requests, record the verdict, and start a retraining if they drifted.

    The verdict is in MLflow before the event is sent, and the requests are marked as judged after it: an interruption
    between the two repeats the event, and never loses it. Before the first champion there is nothing to compare with.

    Returns:
        The verdict; the run's final state is named "Drift", "No drift", "No verdict" (too little to compare) or
        "No champion".
    """
    record_log_lines()
    home = Home.from_environment()
    champion = find_version_by_alias(config.registry, "champion", home)
    if champion is None:
        reason = f"{config.registry.model_name} has no champion yet: nothing to compare the requests with"
        return _completed({"drifted": False, "reason": reason})
    window = read_requests(config, home)
    verdict = detect_drift_task(window, champion, config)
    result: dict[str, Any] = {
        **asdict(verdict),
        "top_features": list(verdict.top_features),
        "model": champion.name,
        "version": champion.version,
        "requests_read": len(window.requests),
        "malformed_lines": window.malformed_lines,
        "source": str(window.source),
    }
    result["run_id"] = record_drift(result, champion.version, config.registry, home)
    result["event_emitted"] = verdict.drifted and emit_drift_event(verdict, champion.name, champion.version)
    if result["event_emitted"]:
        mark_judged(window, config.serving.model_name, home)
    return _completed(result)


def state_name(result: dict[str, Any]) -> str:
    """Return the name of the final state; what was not compared has not been found free of drift."""
    if "version" not in result:
        return "No champion"
    if result["p_value"] is None:
        return "No verdict"
    return "Drift" if result["drifted"] else "No drift"


def _completed(result: dict[str, Any]) -> dict[str, Any]:
    """Name the run's final state; Prefect unwraps it, so that a caller of the flow gets `result`."""
    return cast("dict[str, Any]", Completed(name=state_name(result), message=result["reason"], data=result))
