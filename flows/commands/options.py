"""What every command shares: the options that choose a configuration, and a quiet terminal."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.contracts.config import preset_names
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("llm_retrain.cli")

_ONLY_OUR_LINES = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""In the terminal our own log lines are enough; Prefect still records its own with the run."""


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --preset, --config and --set to a command."""
    for option in (
        click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."),
        click.option("--config", "file", type=click.Path(path_type=Path), help="A YAML file laid over the preset."),
        click.option("--preset", metavar="NAME", help=f"One of: {', '.join(preset_names())}."),
    ):
        command = option(command)
    return command


def utf8(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Refuse what cannot be written down: bytes of the command line that are no UTF-8."""
    try:
        return None if text is None else text.encode().decode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("expected text in UTF-8") from error


def reason_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --reason of a command that does something."""
    return click.option("--reason", callback=utf8, default=default, show_default=True, help="Why; goes to the ledger.")


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")


@contextmanager
def recorded_flow(home: Home) -> Iterator[None]:
    """Have a Prefect server for the flow that the block runs, and settle the runs that ended without a word before."""
    from prefect import tags
    from prefect.settings import PREFECT_API_URL

    from flows.services import prefect_api_url
    from flows.services.lost_runs import close_lost_commands, process_tag
    from flows.services.prefect_api import PrefectApi
    from flows.services.temporary_server import start_temporary_server

    api = prefect_api_url(home) if PREFECT_API_URL.value() else start_temporary_server()
    if api is not None:  # else it is somebody else's, with runs of other homes
        try:
            close_lost_commands(PrefectApi(api))
        except EnvironmentProblem as problem:  # the next command does it
            log.warning("Flow runs whose process is gone may still be called running: %s", problem)
    with tags(process_tag()):
        yield


@contextmanager
def terminal(home: Home, as_json: bool) -> "Iterator[Console]":
    """Set up a quiet environment and our own log lines; progress goes to standard error, results to standard output."""
    from flows.services import prefect_api_url, quiet_environment
    from flows.services.environment import MLFLOW_PORT, PREFECT_PORT, port_from_environment

    for variable in (PREFECT_PORT, MLFLOW_PORT):
        port_from_environment(variable)  # a wrong one is said now, not after the work
    try:
        home.prefect.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"the state directory {home.root} cannot be used ({error.strerror}); point LLM_RETRAIN_HOME elsewhere"
        ) from error
    for key, value in {**quiet_environment(home), **_ONLY_OUR_LINES}.items():
        if key.upper() == "NO_PROXY":  # holds the caller's hosts and ours
            os.environ[key] = value
        else:
            os.environ.setdefault(key, value)
    api_url = prefect_api_url(home)
    if api_url:
        os.environ.setdefault("PREFECT_API_URL", api_url)
    from rich.console import Console
    from rich.logging import RichHandler

    # Without `emoji=False` a ":key:" in a prompt becomes a picture, and the curl line asks something else.
    log_console = Console(stderr=True, emoji=False)
    handler = RichHandler(console=log_console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    logger = logging.getLogger("llm_retrain")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.WARNING if as_json else logging.INFO)
    try:
        yield Console(emoji=False)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
