"""`llm-retrain promote`, `rollback`, `approve` and `reject`: who answers, decided by a person."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from flows.commands.options import config_options, json_option, reason_option, recorded_flow, terminal, utf8
from tasks.contracts.config import load_config
from tasks.contracts.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.contracts.artifacts import ServedVersion


@click.command()
@click.argument("version", type=int)
@config_options
@reason_option("promoted by hand")
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


@click.command()
@click.option("--to", type=int, metavar="VERSION", help="Return to this one, which was champion once.")
@config_options
@reason_option("rolled back by hand")
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


def _command(decision: Literal["approve", "reject"], what: str) -> click.Command:
    """Return the command that decides so; both take the same."""

    @click.command(decision, help=what)
    @click.argument("version", type=int)
    @click.option("--reason", callback=utf8, required=True, help="Why; goes to the ledger.")
    @click.option("--name", callback=utf8, help="Who decides (default: this machine's user).")
    @config_options
    @json_option
    def decide(
        version: int,
        reason: str,
        name: str | None,
        preset: str | None,
        file: Path | None,
        overrides: tuple[str, ...],
        as_json: bool,
    ) -> None:
        _decide(decision, version, reason, name, (preset, file, overrides), as_json)

    return decide


approve = _command("approve", "Make VERSION, which waits for a decision, the champion.")
reject = _command("reject", "Decide against VERSION, which waits for a decision; no later run promotes the same model.")


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
        from tasks.registry.ledger import this_user

        said = decision_of(decision, reason, name or this_user())
        with recorded_flow(home):
            served: ServedVersion | None = approve_flow(version=version, decision=said, config=config)
        if as_json:
            click.echo(json.dumps({"decision": decision, "served": asdict(served) if served else None}))
        elif served is None:
            console.print(f"Version {version} is rejected; the champion has not changed.")
        else:
            _say_served(console, False, served)


def _say_served(console: "Console", as_json: bool, served: Any) -> None:
    if as_json:
        click.echo(json.dumps(asdict(served), ensure_ascii=False))
    else:
        console.print(f"Version {served.version} is champion ({served.triton_model}). {served.note}", markup=False)
