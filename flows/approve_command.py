"""`llm-retrain approve` and `reject`: a person's decision on a version that waits for one."""

import getpass
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flows.command import config_options, json_option, recorded_flow, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home

if TYPE_CHECKING:
    from tasks.contracts.artifacts import ServedVersion


def _deciding(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both decisions take."""
    name = click.option("--name", help="Who decides (default: the user of this machine); goes to the ledger.")
    reason = click.option("--reason", required=True, help="Why; goes to the ledger.")
    return click.argument("version", type=int)(reason(name(config_options(json_option(command)))))


@click.command()
@_deciding
def approve(
    version: int,
    reason: str,
    name: str | None,
    preset: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make VERSION, which waits for a decision, the champion."""
    _decide("approve", version, reason, name, (preset, file, overrides), as_json)


@click.command()
@_deciding
def reject(
    version: int,
    reason: str,
    name: str | None,
    preset: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Decide against VERSION, which waits for a decision; no later run promotes the same model."""
    _decide("reject", version, reason, name, (preset, file, overrides), as_json)


def _decide(
    decision: Literal["approve", "reject"],
    version: int,
    reason: str,
    name: str | None,
    source: tuple[str | None, Path | None, tuple[str, ...]],
    as_json: bool,
) -> None:
    config, home = load_config(*source), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.approve import approve as approve_flow
        from flows.approve import decision_of

        said = decision_of(decision, reason, name or getpass.getuser())
        with recorded_flow(home):
            served: ServedVersion | None = approve_flow(version=version, decision=said, config=config)
        if as_json:
            click.echo(json.dumps({"decision": decision, "served": asdict(served) if served else None}))
        elif served is None:
            console.print(f"Version {version} is rejected; the champion has not changed.")
        else:
            note = f"Version {served.version} is champion ({served.triton_model}). {served.note}"
            console.print(note, markup=False)
