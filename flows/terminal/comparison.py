"""Two versions side by side as a person reads them in a terminal."""

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.outcome import one_line
from flows.terminal.outcome import colour_of, render_preferred, spelled_interval

_FACTS = {
    "verdict": "verdict",
    "baseline": "compared with",
    "champion_before": "champion then",
    "aliases": "aliases",
    "registered_at": "registered",
    "became_champion": "became champion",
    "base_source": "base model",
    "engine": "engine",
    "servable_bytes": "size as served",
    "median_seconds": "half of its answers within",
    "slow_seconds": "19 of 20 answers within",
    "train_rows": "rows to train on",
    "eval_rows": "rows to evaluate on",
    "examples": "rows it was judged on",
}
_COUNTS = {
    "added": "added",
    "removed": "removed",
    "changed": "answered otherwise",
    "moved": "moved between training and evaluation",
    "in_both": "in both",
}
_SETTING_CHARS = 60


def render_comparison(console: Console, facts: dict[str, Any]) -> None:
    """Show verdicts and sizes, scores, the paired comparison, and what differs in settings and rows."""
    names = [f"version {version['version']}" for version in facts["versions"]]
    console.print(_facts_table(facts["versions"], names))
    console.print(_scores_table(facts["versions"], names))
    render_preferred(console, facts["versions"])
    console.print(escape(_sentence(facts["rows"]["says"])), soft_wrap=True, highlight=False)
    paired = facts["paired"]
    if "missing" not in paired:
        console.print(_paired_table(paired, names))
        console.print(f"p: of any difference, corrected over these {len(paired['p_values'])} metrics (Holm).")
        for path in paired["rows_lost"]:
            console.print(f"Rows that were trained on are lost, and not left out: {escape(path)}", soft_wrap=True)
    elif facts["rows"]["same"]:
        console.print(f"They cannot be compared row by row: {escape(paired['missing'])}", soft_wrap=True)
    _render_settings(console, facts["settings"], names)
    console.print(escape(_data_sentence(facts["data"])), soft_wrap=True, highlight=False)


def _facts_table(versions: list[dict[str, Any]], names: list[str]) -> Table:
    table = Table(title="Versions", title_justify="left")
    for column in ("", *names):
        table.add_column(column)
    for key, title in _FACTS.items():
        table.add_row(title, *(escape(_spelled(key, version[key])) for version in versions))
    return table


def _spelled(key: str, value: Any) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, list):
        return ", ".join(str(each)[:19] for each in value)
    if key == "servable_bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:.2f} s" if key.endswith("_seconds") else str(value)


def _scores_table(versions: list[dict[str, Any]], names: list[str]) -> Table:
    """Return the scores of each, on the rows that it was judged on."""
    table = Table(title="Scores, each on the rows of its own report", title_justify="left")
    table.add_column("metric")
    for name in names:
        table.add_column(name, justify="right")
    scores = [version["scores"] or {} for version in versions]
    for metric in dict.fromkeys(name for each in scores for name in each):
        table.add_row(metric, *(spelled_interval(metric, each[metric]) if metric in each else "–" for each in scores))
    return table


def _paired_table(paired: dict[str, Any], names: list[str]) -> Table:
    left_out = f", {paired['left_out']} left out that one was trained on" if paired["left_out"] else ""
    title = f"Row by row: {paired['examples']} rows{left_out}, {paired['confidence']:.0%} intervals"
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for name in (*names, f"{names[1]} − {names[0]}", "p"):
        table.add_column(name, justify="right")
    for metric, difference in paired["differences"].items():
        colour = colour_of(metric, difference)
        table.add_row(
            metric,
            *(spelled_interval(metric, paired[place][metric]) for place in ("first", "second")),
            f"[{colour}]{spelled_interval(metric, difference, signed=True)}[/]",
            f"{paired['p_values'][metric]:.2g}",
        )
    return table


def _render_settings(console: Console, settings: dict[str, Any], names: list[str]) -> None:
    if "missing" in settings:
        console.print(f"Settings cannot be compared: {escape(settings['missing'])}", soft_wrap=True)
        return
    if not settings["different"]:
        console.print("All settings are the same.")
        return
    table = Table(title="Settings that differ", title_justify="left")
    for column in ("setting", *names):
        table.add_column(column)
    for line in settings["different"]:
        cells = (json.dumps(line[place], ensure_ascii=False) for place in ("first", "second"))
        table.add_row(escape(line["key"]), *(escape(one_line(cell, _SETTING_CHARS)) for cell in cells))
    console.print(table)


def _data_sentence(data: dict[str, Any]) -> str:
    first, second = data["first"][:12], data["second"][:12]
    if data["same"]:
        return f"Both were made with data version {first}."
    if "missing" in data:
        return f"Their data versions are {first} and {second}, which cannot be compared: {data['missing']}."
    counts = ", ".join(f"{data[key]:,} {said}" for key, said in _COUNTS.items())
    return f"Their data versions are {first} and {second}. Rows: {counts} (llm-retrain data diff {first} {second})."


def _sentence(says: str) -> str:
    return f"{says[0].upper()}{says[1:]}."
