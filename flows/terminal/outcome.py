"""What a person reads in the terminal at the end of a run, and lines about versions. Model output is shown as text."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.outcome import Outcome, one_line
from tasks.contracts.metric_names import facts_of
from tasks.registry.chain import ChainProblem

_HEADLINE = {
    "promoted": "[bold green]Promoted[/]: version {version} is champion",
    "rejected": "[bold red]Rejected[/]: version {version} is registered for the record; the champion has not changed",
    "inconclusive": "[bold yellow]Inconclusive[/]: version {version} is challenger; the champion has not changed",
    "waiting": "[bold cyan]Better[/]: version {version} waits for a person's decision until {until}:\n"
    "  llm-retrain approve {version} --reason …     (or: llm-retrain reject {version} --reason …)",
    "unchanged": "[bold]Nothing to do[/]: version {version} already holds the result of this configuration ({verdict})",
}
_OVERRULED = (
    "[bold]Nothing to do[/]: the model of version {version} was [bold yellow]{overruled}[/] by a person, and becomes "
    "champion only by hand: llm-retrain promote {version}"
)


def render_outcome(console: Console, outcome: Outcome, links: dict[str, str]) -> None:
    """Show scores, verdict, version, three answers, where to look and how to ask."""
    console.print()
    console.print(_score_table(outcome))
    for reason in outcome.reasons:
        console.print(f"  • {escape(reason)}")
    for said in outcome.preferences:
        console.print(f"  • {escape(one_line(said, 1_000))}")
    for line in long_row_lines(outcome.long_rows):
        console.print(f"  • {line}")
    console.print()
    console.print(headline(outcome))
    if outcome.served:
        console.print(f"  {escape(outcome.served['note'])}")
    console.print()
    if outcome.status != "unchanged":
        console.print(_sample_table(outcome))
    for name, place in links.items():
        console.print(f"{name:<9}{escape(place)}", soft_wrap=True, highlight=False)
    if outcome.curl:
        console.print("\nAsk it (the answer is the evaluated one):")
        console.print(outcome.curl, soft_wrap=True, markup=False, highlight=False)
        console.print(f"  → {one_line(outcome.question['answer'])}", markup=False, highlight=False)


def long_row_lines(long_rows: dict[str, int]) -> list[str]:
    """Say how many training rows were too long, where there were any."""
    words = {
        "rows_too_long": "training rows were too long and left out",
        "rows_cut_off": "training rows were too long and cut off",
    }
    return [f"{count} {words[name]} (training.max_length_tokens)" for name, count in long_rows.items() if count]


def headline(outcome: Outcome) -> str:
    """Say in one line, with markup, what the run came to."""
    template = _OVERRULED if outcome.overruled else _HEADLINE[outcome.status]
    line = template.format(
        version=outcome.version,
        verdict=outcome.verdict,
        overruled=outcome.overruled,
        until=f"{short_time(outcome.waits_until)} UTC",
    )
    if outcome.served and not outcome.served["served"]:
        line += "; it is [bold yellow]not being served[/]"
    return line


def render_history(console: Console, versions: list[dict[str, Any]], ledger: list[dict[str, Any]], metric: str) -> None:
    """Show the versions with their score of one metric, newest first, and the moves of the champion."""
    table = Table(title="Versions", title_justify="left")
    for column in ("version", "alias", "verdict", "compared with", metric, "engine", "servable"):
        table.add_column(column, no_wrap=column in ("version", "verdict"))
    for line in versions:
        shown = {**line, "verdict": "\n".join(filter(None, (line["verdict"], line["overruled"])))}
        table.add_row(
            *(
                escape("–" if shown[key] is None else str(shown[key]))
                for key in ("version", "aliases", "verdict", "baseline", "score", "engine", "servable")
            )
        )
    console.print(table)
    render_preferred(console, versions)
    moves = Table(title="Ledger", title_justify="left")
    for column in ("time (UTC)", "who", "event", "from", "to", "why", "evidence"):
        moves.add_column(column, no_wrap=column in ("time (UTC)", "event"))
    for record in ledger:
        cells = [
            short_time(record["time"]),
            record["who"],
            record["event"],
            record["from"],
            record["to"],
            record["why"],
            record["evidence"],
        ]
        moves.add_row(*(escape(one_line("–" if cell is None else str(cell), 90)) for cell in cells))
    console.print(moves)


def render_preferred(console: Console, versions: list[dict[str, Any]]) -> None:
    """Say whose answers judges and people preferred, a line each."""
    for version in versions:
        for said in version["preferred"]:
            console.print(
                f"Version {version['version']}: {escape(one_line(said, 1_000))}", soft_wrap=True, highlight=False
            )


def render_ledger_problems(console: Console, problems: list[ChainProblem], ledger: Path) -> None:
    """Warn of what is not as it was written; nothing if all is."""
    if any(problem.breaks_chain for problem in problems):
        console.print(
            f"[bold red]Warning[/]: the ledger {escape(str(ledger))} was changed after it was written; what it says of "
            "champions and reasons cannot be relied on",
            soft_wrap=True,
        )
    elif problems:
        console.print(f"A crash left this in the ledger {escape(str(ledger))}; all else is as written:", soft_wrap=True)
    for problem in problems:
        console.print(f"  • line {problem.line} {escape(problem.what)}", soft_wrap=True)


def short_time(time: str) -> str:
    """Shorten a time of ISO 8601 to what tells the lines of a list apart: month, day and minute."""
    return time[5:16].replace("T", " ")


_ALSO_SHOWN = ("perplexity", "length_ratio")


def _score_table(outcome: Outcome) -> Table:
    """Return the metrics that the gate judges by, and two that say what kind of answers these are."""
    systems = list(outcome.scores)
    scored = outcome.scores["candidate"]
    baseline = "champion" if "champion" in outcome.differences else "base"
    table = Table(title=f"{outcome.examples} held-out rows, with confidence intervals", title_justify="left")
    table.add_column("metric")
    for system in systems:
        table.add_column(system, justify="right")
    table.add_column(f"candidate − {baseline}", justify="right")
    for metric in dict.fromkeys([*(outcome.judged or scored), *_ALSO_SHOWN]):
        if metric not in scored:
            continue
        cells = [spelled_interval(metric, outcome.scores[system][metric]) for system in systems]
        difference = outcome.differences[baseline][metric]
        colour = colour_of(metric, difference)
        table.add_row(metric, *cells, f"[{colour}]{spelled_interval(metric, difference, signed=True)}[/]")
    return table


def colour_of(metric: str, difference: dict[str, float]) -> str:
    """Return green for a difference that is better with confidence, red for one that is worse."""
    better = facts_of(metric).better
    if better == "neither":
        return "default"
    up, down = ("green", "red") if better == "higher" else ("red", "green")
    return up if difference["low"] > 0 else down if difference["high"] < 0 else "yellow"


def _sample_table(outcome: Outcome) -> Table:
    table = Table(title="Three answers side by side", title_justify="left", show_lines=True)
    columns = ["reference", *outcome.scores]
    table.add_column("prompt (end)", ratio=3)
    for column in columns:
        table.add_column(column, ratio=2)
    for sample in outcome.samples:
        cells = [escape(one_line(str(sample[key]), 160)) for key in columns]
        table.add_row(escape(one_line(str(sample["prompt"])[-220:], 220)), *cells)
    return table


def spelled_interval(metric: str, value: dict[str, float], signed: bool = False) -> str:
    """Spell a figure and its interval with as many decimals as the metric is worth, safe for markup."""
    digits = f"{'+' if signed else ''}.{facts_of(metric).decimals}f"
    return escape(f"{value['value']:{digits}} [{value['low']:{digits}}, {value['high']:{digits}}]")
