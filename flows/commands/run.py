"""`llm-retrain run` and `sweep`: from the sources to a served version, or to the reasons against it."""

import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from flows.commands.options import config_options, json_option, reason_option, recorded_flow, terminal
from tasks.contracts.config import RetrainConfig, load_config
from tasks.contracts.home import Home

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from flows.sweep import SweepOutcome

log = logging.getLogger("llm_retrain.cli")

_PREFECT_UI_PATH = "runs/flow-run"


@click.command()
@config_options
@reason_option("started by hand")
@json_option
def run(preset: str | None, file: Path | None, overrides: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Retrain once: from the sources to a served version, or to the reasons against it."""
    started = time.monotonic()
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.finished import find_finished

        outcome = find_finished(config, home) or _retrain(config, home, reason)
        if outcome.status == "waiting":
            from flows.approval_form import ask_again

            ask_again(home, config)
        outcome = replace(outcome, seconds=round(time.monotonic() - started, 1))
        if as_json:
            click.echo(json.dumps(outcome.to_json(), ensure_ascii=False))
        else:
            from flows.terminal.outcome import render_outcome

            render_outcome(console, outcome, _links(config, home, outcome.places))
    sys.exit(outcome.exit_code)


@click.command()
@config_options
@reason_option("sweep by hand")
@json_option
def sweep(preset: str | None, file: Path | None, overrides: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Search the training settings of sweep.space; the best go on like any candidate."""
    started = time.monotonic()
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from tasks.training.sweep.space import check_sweep

        check_sweep(config)
        log.info("Searching the training settings of %s", config.registry.model_name)
        _quieten_mlflow()
        from flows.sweep import sweep as sweep_flow

        with recorded_flow(home):
            record, outcome = cast("SweepOutcome", sweep_flow(config=config, reason=reason))
        outcome = replace(outcome, seconds=round(time.monotonic() - started, 1))
        if as_json:
            click.echo(json.dumps({"sweep": record.to_json(), **outcome.to_json()}, ensure_ascii=False))
        else:
            from flows.terminal.outcome import render_outcome
            from flows.terminal.sweep import render_sweep

            render_sweep(console, record)
            places = {"mlflow_run": record.run_id, "mlflow_experiment": record.experiment}
            links = {"Sweep": _links(config, home, {**outcome.places, **places})["MLflow"]}
            render_outcome(console, outcome, {**links, **_links(config, home, outcome.places)})
    sys.exit(outcome.exit_code)


def _retrain(config: RetrainConfig, home: Home, reason: str) -> "Outcome":
    # Said at once: the imports take seconds, and the first run of a home also makes the databases.
    log.info("Retraining %s from %s", config.registry.model_name, config.base_model.source)
    _quieten_mlflow()
    from flows.retrain import retrain

    with recorded_flow(home):
        return cast("Outcome", retrain(config=config, reason=reason))


def _quieten_mlflow() -> None:
    from mlflow.utils.logging_utils import disable_logging

    # MLflow writes "Successfully registered model" past its log level, straight to standard error.
    disable_logging()  # type: ignore[no-untyped-call]
    for handler in logging.getLogger("llm_retrain").handlers:
        logging.getLogger("mlflow").addHandler(handler)  # its warnings still show, as ours do


def _links(config: RetrainConfig, home: Home, places: dict[str, str]) -> dict[str, str]:
    from flows.services import mlflow_url, prefect_api_url
    from flows.services.environment import PREFECT_PORT, api_url, port_from_environment

    api = prefect_api_url(home)
    hint = "" if api else "  (start the pages with: llm-retrain up)"
    links = {"Report": places["report"]}
    if "mlflow_experiment" in places:
        own = config.registry.tracking_uri
        server = own if own.startswith("http") else mlflow_url(home)
        run_page = f"{server}/#/experiments/{places['mlflow_experiment']}/runs/{places['mlflow_run']}"
        links["MLflow"] = run_page + ("" if own else hint)
    ui = (api or api_url(port_from_environment(PREFECT_PORT))).removesuffix("/api")
    for name, key in (("Prefect", "prefect_flow_run"), ("Decide", "approval_flow_run")):
        if key in places:
            links[name] = f"{ui}/{_PREFECT_UI_PATH}/{places[key]}{hint}"
    return links
