"""The alarm of two evaluation sets: the gain on rows that were frozen once, against that on rows that came later."""

import math
from collections.abc import Iterator

from tasks.contracts.artifacts import Difference, EvalReport, Finding, Outcome
from tasks.contracts.evaluation_config import GateSection
from tasks.contracts.evaluation_sets import ANCHOR, RECENT, SETS_AGREE
from tasks.evaluation.significance import expanded, gap, improvement, is_evidence


def sets_agree(report: EvalReport, gate: GateSection, baseline: str) -> Iterator[Finding]:
    """Yield whether the primary metric gains as much on the recent set as on the anchor set, where there are sets.

    They disagree, and the rule is open, if the interval of the difference of the two gains leaves zero: `gap` of the
    two intervals, since no row is of both and the gains are independent, each `expanded` for its number of rows. Where
    the sets are alike this happens with the chance 1 - confidence, twice the gate's alpha. Whichever way they differ,
    one of them does not stand for what is asked; that is no reason to reject, and a person has to look. Too few rows
    are no evidence.

    Args:
        report: with the sets' scores.
        gate: the primary metric, and how many rows say anything.
        baseline: "champion" or "base".
    """
    if not report.sets:
        return
    metric, gains = gate.primary_metric, dict[str, Difference]()
    for name in (ANCHOR, RECENT):
        part = report.sets.get(name)
        rows = part.examples if part else 0
        if part is None or not rows >= gate.min_slice_examples:
            yield _finding(
                "open",
                f"Of the {name} set {rows} rows were evaluated, too few to say whether the sets agree; expected at "
                f"least {gate.min_slice_examples} (gate.min_slice_examples).",
                {"rows": rows},
            )
            return
        difference = part.differences.get(baseline, {}).get(metric)
        if not is_evidence(difference):
            yield _finding(
                "open",
                f"The difference of {metric} against {baseline} on the {name} set is no number with an interval: "
                f"{difference}.",
                {"rows": rows},
            )
            return
        gains[name] = improvement(metric, difference)
    anchor, recent = gains[ANCHOR], gains[RECENT]
    rows_of = {name: part.examples for name, part in report.sets.items()}
    seen = gap(*(expanded(gain, rows_of[name], report.confidence) for name, gain in gains.items()))
    agree = seen.low <= 0 <= seen.high  # not so where they are not numbers
    yield _finding(
        "passed" if agree else "open",
        f"{metric} gains {anchor.value:+.4g} against {baseline} on the anchor set ({rows_of[ANCHOR]} rows) and "
        f"{recent.value:+.4g} on the recent set ({rows_of[RECENT]} rows), a difference of {seen.value:+.4g}, interval "
        f"[{seen.low:+.4g}, {seen.high:+.4g}]: "
        + ("the sets agree." if agree else "the sets disagree, and one of them does not stand for what is asked."),
        {"anchor": anchor.value, "recent": recent.value, "value": seen.value, "low": seen.low, "high": seen.high},
    )


def _finding(outcome: Outcome, sentence: str, figures: dict[str, float]) -> Finding:
    return Finding(
        SETS_AGREE, outcome, sentence, {name: figure for name, figure in figures.items() if math.isfinite(figure)}
    )
