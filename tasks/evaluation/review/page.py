"""The page as HTML, from a report, a verdict and what stands beside them. Model output is text, never markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Difference, EvalReport, GateDecision, Interval, Part
from tasks.contracts.metric_names import facts_of
from tasks.evaluation.metrics.tokenization import WordOrCharacterTokenizer
from tasks.evaluation.pages import templates_in
from tasks.evaluation.review.figures import bars, histogram, intervals, reading
from tasks.evaluation.review.preferences import preference_tables
from tasks.evaluation.review.visible import visible
from tasks.evaluation.review.words import compared
from tasks.evaluation.significance import expanded

_SHOWN_ROWS = 5
_VERDICTS = {"promote": "Promote", "reject": "Reject", "inconclusive": "Inconclusive"}


@dataclass(frozen=True)
class Background:
    """What stands beside the scores.

    Attributes:
        title: the registered model.
        champion: the version in production, None if there is none.
        settings: label and figure of what the candidate was made of.
        data: label, figure of the champion's training rows and of the candidate's.
        forms: form on the way to serving, nats a reference token, share of tokens that it finds the likeliest.
        cost: label and figure of what it took.
    """

    title: str
    champion: int | None
    settings: list[tuple[str, str]]
    data: list[tuple[str, str, str]]
    forms: list[tuple[str, str, str]]
    cost: list[tuple[str, str]]


def render_page(
    report: EvalReport, decision: GateDecision, primary: str, rows: Sequence[dict[str, Any]], background: Background
) -> str:
    """Return the whole page; it loads nothing.

    Args:
        report: scores of all systems.
        decision: what the gate made of it.
        primary: the metric by which rows are better or worse.
        rows: lines of the report's `predictions.jsonl`.
        background: what stands beside the scores.
    """
    differences = report.differences[decision.baseline]
    environment = templates_in(Path(__file__).parent)
    environment.filters["visible"] = visible
    environment.globals.update(facts_of=facts_of, cell=_cell, reading=reading)
    lengths = {name: [_words(row[name]) for row in rows] for name in ("reference", *report.scores)}
    waits = {
        name: (each.median_seconds, each.slow_seconds)
        for name, each in report.served.items()
        if each.median_seconds is not None and each.slow_seconds is not None
    }
    gains, losses = _most_changed(rows, decision.baseline, primary)
    return environment.get_template("page.html.jinja").render(
        title=background.title,
        verdict=decision.verdict,
        verdict_word=_VERDICTS[decision.verdict],
        decision=decision,
        report=report,
        systems=list(report.scores),
        metrics=list(report.scores["candidate"]),
        background=background,
        differences_plot=intervals([(name, name, difference) for name, difference in differences.items()]),
        part_plots=_part_plots(report, decision.baseline, primary),
        primary=primary,
        lengths_plot=histogram(lengths, "words"),
        waits_plot=bars(waits, "seconds") if waits else "",
        losses=losses,
        gains=gains,
        preferences=preference_tables(report.preferences),
    )


def _part_plots(report: EvalReport, baseline: str, primary: str) -> list[tuple[str, str]]:
    """Return heading and plot of what is shown on its own: sets, slices of some rows, and the general-ability set."""
    plots: list[tuple[str, str]] = []
    slices = {name: part for name, part in report.slices.items() if part.examples < report.examples}
    for kind, parts in (("set", report.sets), ("slice", slices)):
        rows = [
            (f"{name} ({part.examples})", primary, _as_judged(part, baseline, primary, report))
            for name, part in parts.items()
        ]
        if rows:
            plots.append((f"{primary} by {kind}", intervals(rows, common_scale=True)))
    if report.general:
        lines = [
            (f"{against} {metric}", metric, _as_judged(report.general, against, metric, report))
            for against, differences in report.general.differences.items()
            for metric in differences
        ]
        plots.append(
            (f"General ability: candidate minus … ({report.general.examples} rows, not trained for)", intervals(lines))
        )
    return plots


def _as_judged(part: Part, baseline: str, metric: str, report: EvalReport) -> Difference | Interval:
    """Return a difference with the interval that the gate's rules on parts go by."""
    difference = part.differences[baseline][metric]
    return expanded(difference, part.examples, report.confidence) if part.examples > 1 else difference


def _most_changed(
    rows: Sequence[dict[str, Any]], baseline: str, primary: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows with the largest gains and those with the largest losses, with their words compared."""
    sign = -1 if facts_of(primary).better == "lower" else 1
    scored = [(sign * (_score(row, "candidate", primary) - _score(row, baseline, primary)), row) for row in rows]
    best = sorted((each for each in scored if each[0] > 0), key=lambda each: (-each[0], each[1]["id"]))
    worst = sorted((each for each in scored if each[0] < 0), key=lambda each: (each[0], each[1]["id"]))
    return (
        [_shown(row, baseline, primary) for _, row in best[:_SHOWN_ROWS]],
        [_shown(row, baseline, primary) for _, row in worst[:_SHOWN_ROWS]],
    )


def _score(row: dict[str, Any], system: str, primary: str) -> float:
    return float(row["scores"][system][primary])


def _shown(row: dict[str, Any], baseline: str, primary: str) -> dict[str, Any]:
    before, after = compared(*(visible(row[system], len(row[system])) for system in (baseline, "candidate")))
    return {
        "id": row["id"][:12],
        "slice": row.get("slice", ""),
        "prompt": row["prompt"],
        "reference": row["reference"],
        "before": before,
        "after": after,
        "scores": (_score(row, baseline, primary), _score(row, "candidate", primary)),
    }


def _words(text: str) -> int:
    return len(WordOrCharacterTokenizer.tokenize(text))


def _cell(metric: str, figure: Any, signed: bool = False) -> str:
    digits = f"{'+' if signed else ''}.{facts_of(metric).decimals}f"
    return f"{figure.value:{digits}} [{figure.low:{digits}}, {figure.high:{digits}}]"
