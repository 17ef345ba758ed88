"""`llm-retrain ratings export` and `read`: what people prefer."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home


@click.group()
def ratings() -> None:
    """Let people say which of two answers is better: a blind sheet out, and back in."""


@ratings.command()
@click.argument("version", type=int)
@click.option(
    "--against", metavar="VERSION|base", help="The other answers; by default what VERSION was judged against."
)
@click.option("--rows", type=click.IntRange(min=1), default=50, show_default=True, help="Rows to rate at most.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("sheet.csv"),
    show_default=True,
    help="A .csv for spreadsheets, or a .html page with buttons.",
)
@config_options
@json_option
def export(
    version: int,
    against: str | None,
    rows: int,
    out: Path,
    preset: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a sheet of VERSION's answers beside others, in an order that the sheet does not tell."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.ratings import export_sheet, exported_facts

        exported = export_sheet(version, against, rows, out, config, home)
        if as_json:
            click.echo(json.dumps(exported_facts(exported), ensure_ascii=False))
            return
        alike = f"; {exported.identical} rows were answered alike and count as ties" if exported.identical else ""
        console.print(f"{exported.path}: {exported.rows} rows{alike}.", markup=False, soft_wrap=True)
        filled_in = "ratings.json (which the page saves)" if out.suffix.lower() == ".html" else shlex.quote(str(out))
        console.print(f"Filled in: llm-retrain ratings read {filled_in} --by NAME", markup=False, soft_wrap=True)


@ratings.command()
@click.argument("sheet", type=click.Path(path_type=Path))
@click.option("--by", required=True, metavar="NAME", help="Who rated; the same person again replaces earlier ratings.")
@config_options
@json_option
def read(
    sheet: Path, by: str, preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Count what NAME filled into SHEET, with all that was read before, and keep it with the version."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.ratings import read_sheet
        from tasks.evaluation.preference_sentence import sentence

        counted = read_sheet(sheet, by, config, home)
        if as_json:
            click.echo(json.dumps(asdict(counted), ensure_ascii=False))
            return
        said = f"{counted.by} rated {counted.rated} rows of version {counted.version} and left {counted.unrated} out."
        console.print(said, markup=False, soft_wrap=True)
        console.print(sentence(counted.preference), markup=False, highlight=False, soft_wrap=True)
