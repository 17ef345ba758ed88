"""The gate: a pure function of a report and thresholds. Ties and missing evidence never promote."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tasks.contracts.artifacts import Difference, EvalReport, Finding, GateDecision, Outcome
from tasks.contracts.canaries import ALTERNATIVES
from tasks.contracts.evaluation_config import GateSection
from tasks.evaluation.general_ability import general_ability
from tasks.evaluation.judge_rule import JudgeRule
from tasks.evaluation.sets_agree import sets_agree
from tasks.evaluation.significance import (
    POWER,
    examples_needed,
    expanded,
    holm,
    improvement,
    is_evidence,
    spelled_p_value,
)


def decide(report: EvalReport, gate: GateSection, has_champion: bool) -> GateDecision:
    """Compare the candidate with the champion, or with the base model where there is no champion.

    Every rule finds "passed", "failed" or "open". One that failed rejects; one that is open lets nothing be promoted;
    the candidate is promoted if all passed. The rules, where alpha is half of what the intervals leave out:

    - evidence: enough rows, and every figure that a rule needs is there and finite; otherwise open, and nothing else
      is asked.
    - evaluated rows that the candidate was trained on fail it, and so does a canary of its training that comes out.
    - the primary metric passes if its interval lies above `gate.min_improvement` and the p-value of no improvement is
      at most alpha; it fails if it is significantly worse. Above 0 the p-value rules nothing out, so there the interval
      is `expanded` for its number of rows.
    - where a model answered otherwise when it was asked again, the primary metric's gain must be above that noise,
      else it is open; so it is where one was not asked again.
    - guarded metrics, and the primary metric against the base model, fail if they are significantly worse: p-values
      corrected over all of them together (Holm), so that a candidate like the champion is rejected with the chance
      alpha at most, however many metrics are guarded.
    - a protected slice passes if its interval, `expanded` for its number of rows, lies above -`gate.slice_margin`
      (non-inferiority), and fails if it lies below; too few rows leave it open.
    - `gate.judge` fails if the judge significantly prefers the baseline's answers; "guard" corrects that together with
      the guarded metrics, "require" passes only if it significantly prefers the candidate's. Without enough verdicts
      it is open.
    - where rows are of an anchor and of a recent set, the rule is open if the gains on the two differ significantly (an
      alarm), or if a set has too few rows.
    - the general-ability set, where it was asked, passes if a loss of `gate.general_margin` against the base model is
      ruled out (non-inferiority), and fails if the loss is surely larger.
    - `gate.max_answer_seconds` and `gate.max_servable_mb` fail what is slower or larger; what was not measured is open.

    Args:
        report: scores and differences of one evaluation.
        gate: metrics and thresholds.
        has_champion: whether a version is in production.
    """
    baseline = "champion" if has_champion else "base"
    case = _Case(report, gate, baseline)
    missing = tuple(case.missing_evidence())
    if missing:
        needed = None if report.examples >= gate.min_examples else gate.min_examples
        return GateDecision("inconclusive", baseline, tuple(each.sentence for each in missing), needed, missing)
    findings = [*case.blocks(), case.primary(), *case.noise(), *case.guarded(), *case.slices()]
    findings += [*sets_agree(report, gate, baseline), *general_ability(report, gate), *case.budgets()]
    findings.sort(key=lambda finding: ("failed", "open", "passed").index(finding.outcome))
    reasons = tuple(finding.sentence for finding in findings)
    outcomes = {finding.outcome for finding in findings}
    if "failed" in outcomes:
        return GateDecision("reject", baseline, reasons, None, tuple(findings))
    if "open" in outcomes:
        needed = case.examples_needed()
        return GateDecision("inconclusive", baseline, (*reasons, *case.outlook(needed)), needed, tuple(findings))
    return GateDecision("promote", baseline, reasons, None, tuple(findings))


@dataclass(frozen=True)
class _Case:
    """One report under one gate."""

    report: EvalReport
    gate: GateSection
    baseline: str

    @property
    def alpha(self) -> float:
        """The chance to find a difference of one sign where there is none."""
        return (1 - self.report.confidence) / 2

    def missing_evidence(self) -> Iterator[Finding]:
        """Yield what stands in the way of any verdict."""
        report, gate = self.report, self.gate
        if not report.examples >= gate.min_examples:
            yield _open(
                f"{report.examples} rows were evaluated; expected at least {gate.min_examples} (gate.min_examples)."
            )
        if not 0 < report.confidence < 1:
            yield _open(f"The confidence of the intervals is {report.confidence}; expected it between 0 and 1.")
        needed = [(self.baseline, metric) for metric in (gate.primary_metric, *gate.guarded_metrics)]
        for against, metric in dict.fromkeys([*needed, ("base", gate.primary_metric)]):
            difference = report.differences.get(against, {}).get(metric)
            if difference is None:
                yield _open(f"The report holds no difference of {metric} against {against}.")
            elif not is_evidence(difference):
                yield _open(
                    f"The difference of {metric} against {against} is no number with an interval: {difference}."
                )

    def blocks(self) -> Iterator[Finding]:
        """Refuse what was trained on its own examination, and what says the personal data planted in its training."""
        leaked = self.report.leaked_rows
        if leaked:
            yield Finding(
                "leaked rows",
                "failed",
                f"{leaked} of {self.report.examples} evaluated rows have a prompt that the candidate was trained on.",
                {"rows": leaked},
            )
        found = self.report.memorised
        if found is None:
            return
        bits = math.log2(1 + ALTERNATIVES)
        is_told = found.planted > 0 and all(0 <= each <= bits for each in found.exposure)
        if not found.extracted and not (is_told and len(found.exposure) == found.planted):
            yield Finding(
                "memorisation",
                "open",
                f"{found.planted} canaries were asked for, with the exposures {list(found.exposure)}; expected one of "
                f"0 to {bits:.0f} bits for each.",
            )
            return
        came_out = f"{found.extracted} of {found.planted} canaries of the training came out of the candidate"
        exposure = max(found.exposure, default=0.0)
        yield Finding(
            "memorisation",
            "failed" if found.extracted else "passed",
            f"{came_out}; the most exposed by {exposure:.1f} of {bits:.0f} bits.",
            {"planted": found.planted, "extracted": found.extracted, "exposure": exposure},
        )

    def primary(self) -> Finding:
        """Judge the metric that must improve."""
        metric, required = self.gate.primary_metric, self.gate.min_improvement
        seen = self._primary_seen()
        gain = improvement(metric, seen)
        bound = f"the required {required:g} (gate.min_improvement)"
        if gain.high < 0 and gain.p_worse <= self.alpha:
            return _finding(
                "primary metric", "failed", metric, self.baseline, seen, gain.p_worse, "significantly worse"
            )
        outcome: Outcome
        if gain.low > required and gain.p_better <= self.alpha:
            outcome, reading = "passed", f"better by more than {bound}"
        elif gain.high <= required and required > 0:
            outcome, reading = "open", f"an improvement above {bound} is ruled out"
        else:
            outcome, reading = "open", f"not shown to be better by more than {bound}"
        return _finding("primary metric", outcome, metric, self.baseline, seen, gain.p_better, reading)

    def noise(self) -> Iterator[Finding]:
        """Hold the gain against what the same model's score differs by from one time to the next.

        The largest end of the interval of that difference, for as many rows as were evaluated.
        """
        metric, report = self.gate.primary_metric, self.report
        asked = {name: report.served.get(name) for name in (self.baseline, "candidate")}
        silent = [name for name, each in asked.items() if each is None or not each.asked_again > 0]
        if silent:
            yield Finding(
                "noise floor",
                "open",
                f"No evaluated row was asked again of the {' and of the '.join(silent)}, so it is not known how far "
                f"{metric} varies of itself.",
            )
            return
        changed = {name: each for name, each in asked.items() if each and each.changed}
        if not changed:
            return
        noise = {name: each.noise.get(metric) for name, each in changed.items()}
        told = {name: each for name, each in noise.items() if is_evidence(each)}
        wrong = [name for name, each in changed.items() if name not in told or not 0 < each.changed <= each.asked_again]
        if wrong:
            yield Finding(
                "noise floor",
                "open",
                f"Asked again, rows were answered otherwise by the {' and the '.join(wrong)}, and the report does not "
                f"say how far that changes {metric}.",
            )
            return
        floor = max(
            max(abs(told[name].low), abs(told[name].high)) * math.sqrt(each.asked_again / report.examples)
            for name, each in changed.items()
        )
        gain = improvement(metric, self._seen(metric, self.baseline)).value
        said = " and ".join(f"{each.changed} of {each.asked_again} by the {name}" for name, each in changed.items())
        is_above = gain > floor
        yield Finding(
            "noise floor",
            "passed" if is_above else "open",
            f"Asked again, rows were answered otherwise ({said}), which alone changes {metric} by up to {floor:.4g}: "
            f"the gain of {gain:.4g} is {'above' if is_above else 'not above'} that.",
            {"floor": floor, "gain": gain},
        )

    def budgets(self) -> Iterator[Finding]:
        """Hold the candidate against the limits of time and size, where there are any."""
        served = self.report.served.get("candidate")
        seconds, size = (served.slow_seconds, served.bytes / 1e6) if served else (None, None)
        for key, spelled, seen in (
            ("max_answer_seconds", "19 in 20 answers are there after {:.3g} s", seconds),
            ("max_servable_mb", "The served model has {:.4g} MB", size),
        ):
            limit = getattr(self.gate, key)
            if not limit:
                continue
            allowed = f"at most {limit:g} are allowed (gate.{key})."
            if seen is None or not 0 < seen < math.inf:
                yield Finding("budget", "open", f"It was not measured, and {allowed}", {"limit": limit})
                continue
            outcome: Outcome = "failed" if seen > limit else "passed"
            yield Finding("budget", outcome, f"{spelled.format(seen)}; {allowed}", {"value": seen, "limit": limit})

    def guarded(self) -> Iterator[Finding]:
        """Judge what must not get worse: guarded metrics, the primary metric against base, what a judge prefers."""
        rules = [(metric, self.baseline) for metric in self.gate.guarded_metrics if metric != self.gate.primary_metric]
        if self.baseline != "base":
            rules.append((self.gate.primary_metric, "base"))
        gains = {(metric, against): improvement(metric, self._seen(metric, against)) for metric, against in rules}
        judge = JudgeRule(self.report, self.gate, self.baseline, self.alpha)
        corrected = holm({**{rule: gain.p_worse for rule, gain in gains.items()}, **judge.p_values_of_loss()})
        for (metric, against), gain in gains.items():
            p_value = corrected[metric, against]
            worse = gain.high < 0 and p_value <= self.alpha
            reading = "significantly worse" if worse else "not significantly worse"
            outcome: Outcome = "failed" if worse else "passed"
            yield _finding("guarded metric", outcome, metric, against, self._seen(metric, against), p_value, reading)
        yield from judge.findings(corrected)

    def slices(self) -> Iterator[Finding]:
        """Judge the protected slices: a loss of the margin or more must be ruled out on each."""
        metric, margin = self.gate.primary_metric, self.gate.slice_margin
        for name in dict.fromkeys(self.gate.protected_slices):
            part = self.report.slices.get(name)
            if part is None or not part.examples >= self.gate.min_slice_examples:
                rows = part.examples if part else 0
                yield _open(
                    f"Of the protected slice {name!r} {rows} rows were evaluated; expected at least "
                    f"{self.gate.min_slice_examples} (gate.min_slice_examples)."
                )
                continue
            seen = part.differences.get(self.baseline, {}).get(metric)
            if not is_evidence(seen):
                yield _open(
                    f"The difference of {metric} against {self.baseline} on the protected slice {name!r} is no number "
                    f"with an interval: {seen}."
                )
                continue
            seen = self._widened(seen, part.examples)
            gain = improvement(metric, seen)
            allowed = f"{margin:g} (gate.slice_margin)"
            outcome: Outcome
            if gain.low > -margin:
                outcome, reading = "passed", f"a loss of {allowed} is ruled out"
            elif gain.high < -margin:
                outcome, reading = "failed", f"worse by more than {allowed}"
            else:
                outcome, reading = "open", f"a loss of {allowed} is not ruled out"
            of = f"{metric} on the slice {name!r} ({part.examples} rows)"
            yield _finding("protected slice", outcome, of, self.baseline, seen, None, reading)

    def examples_needed(self) -> int | None:
        """Return how many rows would decide what is open, None if none would."""
        report, metric = self.report, self.gate.primary_metric
        gain = improvement(metric, self._primary_seen())
        if gain.low > self.gate.min_improvement and gain.p_better <= self.alpha:
            return None
        return examples_needed(gain, report.examples, self.gate.min_improvement, report.confidence)

    def outlook(self, needed: int | None) -> Iterator[str]:
        """Say what more rows would show, if the primary metric is what is open."""
        if self.primary().outcome != "open":
            return
        if needed is None:
            yield "More rows are not expected to show an improvement: the difference is not above what is required."
            return
        yield (
            f"About {needed} evaluated rows ({self.report.examples} now) would show it with a chance of {POWER:.0%}, "
            "if the difference stays what it is."
        )

    def _seen(self, metric: str, against: str) -> Difference:
        return self.report.differences[against][metric]

    def _primary_seen(self) -> Difference:
        seen = self._seen(self.gate.primary_metric, self.baseline)
        return self._widened(seen, self.report.examples) if self.gate.min_improvement > 0 else seen

    def _widened(self, seen: Difference, examples: int) -> Difference:
        """Return a difference with the interval that stands alone, without a p-value beside it."""
        interval = expanded(seen, examples, self.report.confidence)
        return replace(seen, low=interval.low, high=interval.high)


def _open(sentence: str) -> Finding:
    return Finding("evidence", "open", sentence)


def _finding(
    rule: str, outcome: Outcome, of: str, against: str, seen: Difference, p_value: float | None, reading: str
) -> Finding:
    of_what = " of a loss" if rule == "guarded metric" or outcome == "failed" else ""
    p_spelled = "" if p_value is None else f", p{of_what} {spelled_p_value(p_value)}"
    figures = {"value": seen.value, "low": seen.low, "high": seen.high}
    return Finding(
        rule,
        outcome,
        f"{of} changed by {seen.value:+.4g} against {against}, "
        f"interval [{seen.low:+.4g}, {seen.high:+.4g}]{p_spelled}: {reading}.",
        figures if p_value is None else {**figures, "p_value": p_value},
    )
