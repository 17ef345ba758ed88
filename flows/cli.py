"""The command line of `llm-retrain`.

Exit codes: 0 promoted or done; 1 failed; 2 wrong usage or configuration; 3 rejected by the gate; 4 inconclusive;
5 better, and waiting for a person's decision; 130 stopped by Ctrl+C.
"""

import json
import logging
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from flows.approve_command import approve, reject
from flows.command import config_options, json_option, recorded_flow, terminal
from flows.compare_command import compare
from flows.data_commands import data
from flows.join_command import join
from flows.plan_command import plan
from flows.ratings_command import ratings
from tasks.contracts.config import RetrainConfig, load_config, monitor_config
from tasks.contracts.errors import ConfigError, LlmRetrainError, TrainingStopped
from tasks.contracts.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from flows.outcome import Outcome
    from flows.sweep import SweepOutcome

log = logging.getLogger("llm_retrain.cli")

_PREFECT_UI_PATH = "runs/flow-run"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home", type=click.Path(path_type=Path), help="State directory (default: $LLM_RETRAIN_HOME or .llm-retrain)."
)
def cli(home: Path | None) -> None:
    """Keep a fine-tuned language model good: retrain, compare, promote, serve, roll back."""
    if home is not None:
        os.environ["LLM_RETRAIN_HOME"] = str(home.expanduser().resolve())


@cli.command()
@config_options
@click.option("--reason", default="started by hand", show_default=True, help="Why; is logged and goes to the ledger.")
@json_option
def run(preset: str | None, file: Path | None, overrides: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Retrain once: from the sources to a served version, or to the reasons against it."""
    started = time.monotonic()
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.finished import find_finished

        outcome = find_finished(config, home) or _retrain(config, home, reason)
        outcome = replace(outcome, seconds=round(time.monotonic() - started, 1))
        if as_json:
            click.echo(json.dumps(outcome.to_json(), ensure_ascii=False))
        else:
            from flows.terminal import render_outcome

            render_outcome(console, outcome, _links(config, home, outcome.places))
    sys.exit(outcome.exit_code)


@cli.command()
@config_options
@click.option("--reason", default="sweep by hand", show_default=True, help="Why; is logged and goes to the ledger.")
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
            from flows.sweep_terminal import render_sweep
            from flows.terminal import render_outcome

            render_sweep(console, record)
            places = {"mlflow_run": record.run_id, "mlflow_experiment": record.experiment}
            links = {"Sweep": _links(config, home, {**outcome.places, **places})["MLflow"]}
            render_outcome(console, outcome, {**links, **_links(config, home, outcome.places)})
    sys.exit(outcome.exit_code)


@cli.command()
@config_options
@json_option
def status(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show services with their addresses, the champion, and the last runs."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.overview import overview, render_overview

        facts = overview(config, home)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_overview(console, facts)


@cli.command()
@config_options
@json_option
def history(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every version with its verdict, and every move of the champion; warns if the ledger was changed."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.overview import version_lines
        from flows.terminal import render_history, render_ledger_problems
        from tasks.registry.ledger import read_ledger, verify_ledger

        versions, ledger = version_lines(config, home), read_ledger(home, config.registry.model_name)
        problems = verify_ledger(home)
        if as_json:
            facts = {"versions": versions, "ledger": ledger, "ledger_problems": [asdict(each) for each in problems]}
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_history(console, versions, ledger, config.gate.primary_metric)
            render_ledger_problems(console, problems, home.ledger)


@cli.command()
@click.argument("version", type=int)
@config_options
@click.option("--reason", default="promoted by hand", show_default=True, help="Why; goes to the ledger.")
@json_option
def promote(
    version: int, preset: str | None, file: Path | None, overrides: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Make VERSION the champion, if it loads and answers as evaluated."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.promote import promote as promote_flow

        with recorded_flow(home):
            served = promote_flow(version=version, reason=reason, config=config)
        _say_served(console, as_json, served)


@cli.command()
@click.option("--to", type=int, metavar="VERSION", help="Return to this one, which was champion once.")
@config_options
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why; goes to the ledger.")
@json_option
def rollback(
    to: int | None, preset: str | None, file: Path | None, overrides: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Return to the champion before this one, or to an earlier one, if it loads and answers as evaluated."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.promote import rollback as rollback_flow

        with recorded_flow(home):
            served = rollback_flow(reason=reason, to=to, config=config)
        _say_served(console, as_json, served)


@cli.command()
@config_options
@click.option("--requests", default="", help="A JSONL of requests instead of the served model's log.")
@json_option
def monitor(preset: str | None, file: Path | None, overrides: tuple[str, ...], requests: str, as_json: bool) -> None:
    """Compare recent requests with what the champion was trained on."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.monitor import monitor as monitor_flow
        from flows.monitor import state_name

        settings = monitor_config(config)
        if requests:
            settings = settings.model_copy(update={"requests_path": requests})
        with recorded_flow(home):
            verdict = monitor_flow(config=settings)
        if as_json:
            click.echo(json.dumps(verdict, ensure_ascii=False))
        else:
            console.print(f"{state_name(verdict)}: {verdict['reason']}", markup=False)


@cli.command()
@config_options
def up(preset: str | None, file: Path | None, overrides: tuple[str, ...]) -> None:
    """Start Prefect, MLflow, Triton and the worker that executes the deployments."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json=False) as console:
        from flows.services import render_states
        from flows.services import up as start

        states = start(home, config)
        _ask_again(home, config)
        render_states(console, states)


@cli.command()
def down() -> None:
    """Stop what `up` and `run` started."""
    home = Home.from_environment()
    with terminal(home, as_json=False) as console:
        from flows.services import down as stop
        from flows.services import render_states

        render_states(console, stop(home))


@cli.command()
@config_options
@json_option
def doctor(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the machine: Python, pins, disk, memory, processor, ports, Triton; and the ledger."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.doctor import examine, render_findings

        findings = examine(home, config.serving, config.base_model)
        if as_json:
            click.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
        else:
            render_findings(console, findings)
    sys.exit(1 if any(finding.ok == "problem" for finding in findings) else 0)


cli.add_command(approve)
cli.add_command(compare)
cli.add_command(data)
cli.add_command(join)
cli.add_command(plan)
cli.add_command(reject)
cli.add_command(ratings)


_STOPPED = "stopped; run the same command again to go on from what is finished"


def main() -> None:
    """Entry point: every error that a user can mend is one sentence on standard error."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(_STOPPED, err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ConfigError as error:
        click.echo(f"llm-retrain: {error}", err=True)
        sys.exit(2)
    except TrainingStopped as error:  # it heard of Ctrl+C before this process did
        click.echo(f"{error}\n{_STOPPED}", err=True)
        sys.exit(130)
    except LlmRetrainError as error:
        click.echo(f"llm-retrain: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):  # importing MLflow to ask takes seconds
            raise
        click.echo(f"llm-retrain: MLflow refused: {error}; nothing is lost, run the same command again", err=True)
        sys.exit(1)


def _retrain(config: RetrainConfig, home: Home, reason: str) -> "Outcome":
    # Said at once: the imports take seconds, and the first run of a home also makes the databases.
    log.info("Retraining %s from %s", config.registry.model_name, config.base_model.source)
    _quieten_mlflow()
    from flows.retrain import retrain

    with recorded_flow(home):
        return cast("Outcome", retrain(config=config, reason=reason))


def _ask_again(home: Home, config: RetrainConfig) -> None:
    """Bring what waits for a decision before a person: it may have been made before there was a server."""
    from tasks.registry.approvals import open_request

    request = open_request(home, config.registry.model_name)
    if request is not None:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.asking import ask_in_prefect
        from flows.services import prefect_api_url

        with temporary_settings({PREFECT_API_URL: prefect_api_url(home)}):
            ask_in_prefect(request, config)


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


def _say_served(console: "Console", as_json: bool, served: Any) -> None:
    if as_json:
        click.echo(json.dumps(asdict(served), ensure_ascii=False))
    else:
        console.print(f"Version {served.version} is champion ({served.triton_model}). {served.note}", markup=False)
