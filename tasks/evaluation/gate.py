"""The gate: a pure function of a report and thresholds. Ties and missing evidence never promote."""

import math
from dataclasses import dataclass

from tasks.contracts.artifacts import EvalReport, GateDecision, Interval
from tasks.contracts.config import GateSection

_MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class _Finding:
    """What one rule found, and whether it speaks against the candidate."""

    sentence: str
    worse: bool


def decide(report: EvalReport, gate: GateSection, has_champion: bool) -> GateDecision:
    """Compare the candidate with the champion, or with the base model where there is no champion.

    Rules, the first that applies decides: missing evidence is inconclusive; a primary metric or a guarded metric that
    is significantly worse rejects, and so does a primary metric significantly worse than the base model's; a primary
    metric that is better by more than `gate.min_improvement` promotes; anything else is inconclusive. "Significantly"
    means that the paired interval of the difference excludes the bound.

    Args:
        report: scores and differences of one evaluation.
        gate: metrics and thresholds.
        has_champion: whether a version is in production.
    """
    baseline = "champion" if has_champion else "base"
    missing = _missing_evidence(report, gate, baseline)
    if missing:
        needed = gate.min_examples if report.examples < gate.min_examples else None
        return GateDecision("inconclusive", baseline, tuple(missing), needed)
    primary = report.differences[baseline][gate.primary_metric]
    findings = _findings(report, gate, baseline)
    if any(finding.worse for finding in findings):
        findings.sort(key=lambda finding: not finding.worse)
        return GateDecision("reject", baseline, tuple(finding.sentence for finding in findings))
    reasons = tuple(finding.sentence for finding in findings)
    if primary.low > gate.min_improvement:
        return GateDecision("promote", baseline, reasons)
    needed = examples_needed(primary, report.examples, gate.min_improvement)
    return GateDecision("inconclusive", baseline, (*reasons, _outlook(needed, report.examples)), needed)


def examples_needed(difference: Interval, examples: int, min_improvement: float) -> int | None:
    """Estimate how many evaluated rows would show the improvement, if the difference stays what it is.

    The standard error of a mean falls with the square root of the rows (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 5), and with it the lower half width w = value - low of the interval. The lower end passes
    the bound m when w * sqrt(n / N) < value - m, so N > n * (w / (value - m))**2. At N the chance to pass is about one
    half, since the next difference varies too.

    Returns:
        A number above `examples`, at most 1,000,000; None if the difference is not above the bound.
    """
    distance = difference.value - min_improvement
    if distance <= 0 or difference.value < difference.low:
        return None
    estimate = examples * ((difference.value - difference.low) / distance) ** 2
    return max(examples, math.floor(min(estimate, _MOST_EXAMPLES - 1))) + 1


def _missing_evidence(report: EvalReport, gate: GateSection, baseline: str) -> list[str]:
    missing = []
    if report.examples < gate.min_examples:
        missing.append(
            f"{report.examples} rows were evaluated; expected at least {gate.min_examples} (gate.min_examples)."
        )
    needed = [(baseline, metric) for metric in (gate.primary_metric, *gate.guarded_metrics)]
    for against, metric in dict.fromkeys([*needed, ("base", gate.primary_metric)]):
        difference = report.differences.get(against, {}).get(metric)
        if difference is None:
            missing.append(f"The report holds no difference of {metric} against {against}.")
        elif not _is_an_interval(difference):
            missing.append(f"The difference of {metric} against {against} is no number with an interval: {difference}.")
    return missing


def _is_an_interval(difference: Interval) -> bool:
    finite = all(math.isfinite(figure) for figure in (difference.value, difference.low, difference.high))
    return finite and difference.low <= difference.high


def _findings(report: EvalReport, gate: GateSection, baseline: str) -> list[_Finding]:
    """Return one finding a rule, the primary metric's first."""
    primary = report.differences[baseline][gate.primary_metric]
    findings = [_finding(gate.primary_metric, baseline, primary, _primary_reading(primary, gate.min_improvement))]
    guarded = [metric for metric in gate.guarded_metrics if metric != gate.primary_metric]
    rules = [(metric, baseline) for metric in dict.fromkeys(guarded)]
    if baseline != "base":
        rules.append((gate.primary_metric, "base"))
    for metric, against in rules:
        difference = report.differences[against][metric]
        findings.append(_finding(metric, against, difference, "not significantly worse"))
    return findings


def _finding(metric: str, against: str, difference: Interval, otherwise: str) -> _Finding:
    worse = difference.high < 0
    return _Finding(
        f"{metric} changed by {difference.value:+.4g} against {against}, "
        f"interval [{difference.low:+.4g}, {difference.high:+.4g}]: {'significantly worse' if worse else otherwise}.",
        worse,
    )


def _primary_reading(difference: Interval, required: float) -> str:
    bound = f"the required {required:g} (gate.min_improvement)"
    if difference.low > required:
        return f"better by more than {bound}"
    if difference.high <= required and required > 0:
        return f"an improvement above {bound} is ruled out"
    return f"not shown to be better by more than {bound}"


def _outlook(needed: int | None, examples: int) -> str:
    if needed is None:
        return "More rows are not expected to show an improvement: the difference is not above what is required."
    return f"About {needed} evaluated rows ({examples} now) would decide, if the difference stays what it is."
