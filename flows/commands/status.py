"""`llm-retrain status` and `history`: what is running, and what happened."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home


@click.command()
@config_options
@json_option
def status(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show services with their addresses, the champion, and the last runs."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.overview import overview, render_overview

        facts = overview(config, home)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_overview(console, facts)


@click.command()
@config_options
@json_option
def history(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every version with its verdict, and every move of the champion; warns if the ledger was changed."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.outcome import render_history, render_ledger_problems
        from flows.terminal.overview import version_lines
        from tasks.registry.ledger import read_ledger, verify_ledger

        versions, ledger = version_lines(config, home), read_ledger(home, config.registry.model_name)
        problems = verify_ledger(home)
        if as_json:
            facts = {"versions": versions, "ledger": ledger, "ledger_problems": [asdict(each) for each in problems]}
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_history(console, versions, ledger, config.gate.primary_metric)
            render_ledger_problems(console, problems, home.ledger)
