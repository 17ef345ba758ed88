"""`llm-retrain up`, `down` and `doctor`: the servers, and the machine they run on."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home


@click.command()
@config_options
def up(preset: str | None, file: Path | None, overrides: tuple[str, ...]) -> None:
    """Start Prefect, MLflow, Triton and the worker that executes the deployments."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json=False) as console:
        from flows.approval_form import ask_again
        from flows.services import render_states
        from flows.services import up as start

        states = start(home, config)
        ask_again(home, config)
        render_states(console, states)


@click.command()
def down() -> None:
    """Stop what `up` and `run` started."""
    home = Home.from_environment()
    with terminal(home, as_json=False) as console:
        from flows.services import down as stop
        from flows.services import render_states

        render_states(console, stop(home))


@click.command()
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
