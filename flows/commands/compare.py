"""`llm-retrain compare`: two registered versions side by side."""

import json
from pathlib import Path

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home


@click.command()
@click.argument("first", type=int)
@click.argument("second", type=int)
@config_options
@json_option
def compare(
    first: int, second: int, preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Show version FIRST and version SECOND side by side: verdicts, scores, settings, rows, sizes.

    Where both answered the same rows, SECOND is compared with FIRST row by row, by the statistics of the gate.
    """
    if first == second:
        raise click.UsageError(f"FIRST and SECOND are both version {first}; expected two versions")
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.comparison import compare_versions
        from flows.terminal.comparison import render_comparison

        facts = compare_versions(first, second, config, home)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_comparison(console, facts)
