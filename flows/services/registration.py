"""Tell a Prefect server about the project: its work pool, its automations, its deployments."""

import logging
import subprocess
import sys
from typing import Any

import yaml

from flows.services.prefect_api import PrefectApi
from tasks.contracts.config import MonitorConfig, RetrainConfig, chosen_settings
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import PROJECT_ROOT, Home

log = logging.getLogger("llm_retrain.services")

PREFECT_YAML = PROJECT_ROOT / "prefect.yaml"
AUTOMATIONS = PROJECT_ROOT / "deployments" / "automations.yaml"
WORK_POOL = "llm-retrain"
QUEUES: dict[str, int | None] = {"retraining": 1}
"""Deployments have limits of their own; the queue's holds for all that retrain together: they share one device."""
_DEPLOY_SECONDS = 300
_TAIL_LINES = 15


def prepare_work_pool(api: PrefectApi) -> None:
    """Create the work pool with its queues, and the automations.

    Raises:
        EnvironmentProblem: the server refused.
    """
    api.ensure_work_pool(WORK_POOL, QUEUES)
    for automation in yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8")):
        api.ensure_automation(automation)


def deploy(api: PrefectApi, home: Home, environment: dict[str, str], config: RetrainConfig) -> int:
    """Register every deployment of `prefect.yaml`, with `config` laid over the parameters that stand there.

    Returns:
        How many deployments the work pool has.

    Raises:
        EnvironmentProblem: `prefect deploy` failed; shows the end of what it said.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML)]
    try:
        done = subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_DEPLOY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentProblem(f"`prefect deploy --all` did not end in {_DEPLOY_SECONDS} s") from error
    (home.logs / "deploy.log").write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-_TAIL_LINES:])
        raise EnvironmentProblem(f"`prefect deploy --all` failed:\n{said}")
    deployments = api.deployments(WORK_POOL)
    for deployment in deployments:
        parameters = lay_over(deployment, config)
        if parameters != deployment["parameters"]:
            api.set_parameters(deployment["id"], parameters)
    log.info("%d deployments are registered", len(deployments))
    return len(deployments)


def lay_over(deployment: dict[str, Any], config: RetrainConfig) -> dict[str, Any]:
    """Return a deployment's parameters with what `config` sets differently from the defaults.

    What `up` was given is the whole configuration of its retrainings; without, they do as the champion's run did. A
    flow takes the sections it knows: the monitor those of `MonitorConfig`, where its own section's keys stand bare.
    """
    flow_of_monitor = deployment["entrypoint"].startswith("flows.monitor.")
    known = MonitorConfig.model_fields if flow_of_monitor else RetrainConfig.model_fields
    chosen = chosen_settings(config)
    bare = chosen.get("monitor", {}) if flow_of_monitor else {}
    above = {section: values for section, values in chosen.items() if section in known}
    if not above and not bare:
        return dict(deployment["parameters"])
    below = deployment["parameters"].get("config", {})
    merged = {section: {**below.get(section, {}), **values} for section, values in above.items()}
    parameters = {**deployment["parameters"], "config": {**below, **bare, **merged}}
    if "like_champion" in parameters:
        parameters["like_champion"] = False  # somebody said how it shall be
    return parameters
