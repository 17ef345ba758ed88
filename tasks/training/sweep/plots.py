"""Pictures of a sweep: the losses in the order of the trials, and what they depend on."""

from pathlib import Path

from tasks.contracts.sweep_record import SweepRecord

_MARKS = {"finished": ("o", "C0"), "pruned": ("x", "C1"), "stopped": ("s", "C2")}
_LINEAR_RATIO = 20
"""Losses further apart than that are drawn by their logarithm, or the good ones would lie on one line."""


def write_plots(record: SweepRecord, folder: Path) -> list[Path]:
    """Draw `history.png`, and `importance.png` where enough trials finished for it; return what was drawn."""
    drawn = [_write_history(record, folder / "history.png")]
    if record.importances:
        drawn.append(_write_importances(record, folder / "importance.png"))
    return drawn


def _write_history(record: SweepRecord, path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    measured = [trial for trial in record.trials if trial.loss is not None]
    for state, (marker, colour) in _MARKS.items():
        shown = [(trial.number, trial.loss) for trial in measured if trial.state == state]
        if shown:
            axes.scatter(*zip(*shown, strict=True), marker=marker, color=colour, label=state)
    best: list[tuple[int, float]] = []
    for trial in record.trials:
        if trial.state == "finished" and trial.loss is not None:
            best.append((trial.number, min(trial.loss, best[-1][1]) if best else trial.loss))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="C3", label="best so far")
    for trial in record.trials:
        if trial.state == "failed":
            axes.axvline(trial.number, color="0.8", linewidth=4, zorder=0)
    losses = [trial.loss for trial in measured if trial.loss]
    if losses and max(losses) > _LINEAR_RATIO * min(losses):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial (grey: failed)")
    axes.set_ylabel("validation loss")
    axes.set_title(record.name)
    if measured:
        axes.legend()
    figure.savefig(path)
    return path


def _write_importances(record: SweepRecord, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.4 * len(record.importances)), layout="constrained")
    axes = figure.subplots()
    names, shares = list(record.importances), list(record.importances.values())
    axes.bar_label(axes.barh(names, shares), fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the differences in validation loss (PED-ANOVA)")
    figure.savefig(path)
    return path
