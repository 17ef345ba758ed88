"""`llm-retrain plan`: what a training would need, without training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import load_config
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.contracts.unused_settings import warn_of_unused_settings

if TYPE_CHECKING:
    from rich.console import Console

_VERDICTS = {
    (True, True): "[green]It fits[/]",
    (False, True): "[yellow]It may not fit[/]",
    (False, False): "[bold red]It does not fit[/]",
}
_PARTS = {
    "process": "the process and its libraries",
    "weights": "weights, and what the method adds",
    "masters": "fp32 copies of what is trained",
    "gradients": "gradients",
    "optimizer": "AdamW's moments",
    "guards": "copies for early stopping and consolidation",
    "activations": "activations",
    "attention": "attention scores",
    "logits": "logits and their gradient",
    "reserve": "allocator and kernels",
}


@click.command()
@config_options
@json_option
def plan(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say what memory and time a training would take, and what to change if it does not fit; nothing is trained.

    Exit code 0 whether it fits or not; `fits` and `may_fit` of --json say which.

    The data version and the base model are made if they are not there yet, as `run` would make them and will find them.
    """
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.commands.data import build_version
        from tasks.data.ingest import Place
        from tasks.data.replay import prepare_replay
        from tasks.training.adapter import TrainingJob
        from tasks.training.base_model import prepare_base_model, prepare_teacher
        from tasks.training.plan.request import request_plan

        warn_of_unused_settings(config.training)
        store = Store(home.store)
        dataset = build_version(config, home, store)
        base = prepare_base_model(config.base_model, home, store)
        teacher = prepare_teacher(config.training, config.base_model, home, store)
        replay = prepare_replay(config.training.replay, dataset, Place(home, store, config.serving))
        job = TrainingJob(base, dataset, config.training, config.serving.system_prompt, replay, teacher)
        facts = request_plan(job, store, home.logs / "plan.log")
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            render_plan(console, config.training.method, facts)


def render_plan(console: "Console", method: str, facts: dict[str, Any]) -> None:
    """Show bytes by part, what is free, the time, and what could be changed."""
    from rich.table import Table

    # Not the table's title, which would be as narrow as the table.
    console.print(
        f"{method} in {facts['precision']} on {facts['device']}, {facts['trained_parameters']:,} trained numbers"
    )
    table = Table("part, at the moment of the peak")
    table.add_column("MB", justify="right")
    for name, size in facts["memory"].items():
        if size:
            table.add_row(_PARTS[name], f"{size / 1e6:,.0f}")
    if facts["loading_bytes"] == facts["total_bytes"]:
        table.add_row("[dim]more while the weights are loaded[/]", f"{facts['loading_bytes'] / 1e6:,.0f}")
    table.add_section()
    table.add_row("[bold]peak[/]", f"[bold]{facts['total_bytes'] / 1e6:,.0f}[/]")
    console.print(table)
    verdict = _VERDICTS[facts["fits"], facts["may_fit"]]
    needed, free = facts["needed_bytes"] / 1e9, facts["free_bytes"] / 1e9
    console.print(f"{verdict}: {needed:.2f} GB are needed beside the process itself, {free:.2f} GB are free.")
    left_out, cut_off = facts["rows_too_long"], facts["rows_cut_off"]
    console.print(
        f"Rows: {facts['rows']}"
        + (f", {left_out} left out as too long" if left_out else "")
        + (f", {cut_off} cut off" if cut_off else "")
        + f"; the largest micro-batch has {facts['largest_rows']} x {facts['largest_tokens']} tokens."
    )
    speed = facts["flops_per_second"] / 1e9
    console.print(
        f"Time: about {spelled_seconds(facts['seconds'])} for {facts['total_tokens']:,} tokens with padding "
        f"(matrix products reach {speed:,.0f} GFLOP/s here)."
    )
    _render_advice(console, facts["advice"])


def _render_advice(console: "Console", advice: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from tasks.training.plan.verdict import spelled_price, spelled_setting

    if not advice:
        return
    table = Table("to need less, set", title="What would change it", title_justify="left")
    for column in ("peak MB", "time", "fits"):
        table.add_column(column, justify="right")
    for each in advice:
        fits = "[green]yes[/]" if each["fits"] else "[red]no[/]"
        setting = "\n  ".join(filter(None, (spelled_setting(each), spelled_price(each))))
        table.add_row(setting, f"{each['total_bytes'] / 1e6:,.0f}", spelled_seconds(each["seconds"]), fits)
    console.print(table)


def spelled_seconds(seconds: float) -> str:
    """Spell a time for a person: 40 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.1f} h"
