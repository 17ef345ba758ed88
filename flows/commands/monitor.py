"""`llm-retrain monitor`: do people ask for something else than the champion was trained on?"""

import json
from pathlib import Path

import click

from flows.commands.options import config_options, json_option, recorded_flow, terminal
from tasks.contracts.config import load_config, monitor_config
from tasks.contracts.home import Home


@click.command()
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
