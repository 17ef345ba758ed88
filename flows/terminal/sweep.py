"""What a person reads in the terminal about a sweep."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.outcome import one_line
from tasks.contracts.sweep_record import SweepRecord

_COLOURS = {"finished": "green", "pruned": "yellow", "failed": "red", "stopped": "yellow"}
_REASON_CHARS = 70


def render_sweep(console: Console, record: SweepRecord) -> None:
    """Show the trials, the best first among them in bold, what the loss depends on, and why the sweep ended."""
    keys = list(dict.fromkeys(key for trial in record.trials for key in trial.settings))
    table = Table(title=f"{len(record.trials)} trials by validation loss", title_justify="left")
    for column in ("trial", "state", "loss", *keys, "time", "why not"):
        table.add_column(column, justify="right" if column in ("trial", "loss", "time") else "left")
    states = list(_COLOURS)
    for trial in sorted(record.trials, key=lambda t: (states.index(t.state), t.loss is None, t.loss, t.number)):
        cells = [str(trial.number), f"[{_COLOURS[trial.state]}]{trial.state}[/]", _number(trial.loss)]
        cells += [escape(_number(trial.settings.get(key))) for key in keys]
        cells += [f"{trial.seconds:.0f} s", escape(one_line(trial.reason, _REASON_CHARS))]
        table.add_row(*cells, style="bold" if trial is record.best else None)
    console.print(table)
    if record.importances:
        shares = ", ".join(f"{key} {share:.2f}" for key, share in record.importances.items())
        console.print(f"  • share of the differences in loss: {escape(shares)}")
    console.print(f"  • ended: {escape(record.ended)}")


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
