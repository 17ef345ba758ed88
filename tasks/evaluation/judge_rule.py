"""The gate's rule on what a judge prefers: a pure function of the report and `gate.judge`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.contracts.artifacts import EvalReport, Finding, Outcome, Preference
from tasks.contracts.evaluation_config import GateSection
from tasks.evaluation.significance import are_probabilities, is_evidence, spelled_p_value

_GUARDED = ("judge", "")
"""Its place among the guarded metrics, which are a metric and a baseline each."""


@dataclass(frozen=True)
class JudgeRule:
    """What a judge said in one report, under one gate.

    Attributes:
        report: the evaluation.
        gate: what is asked for.
        baseline: what the candidate is compared with.
        alpha: the level of one side.
    """

    report: EvalReport
    gate: GateSection
    baseline: str
    alpha: float

    def p_values_of_loss(self) -> dict[tuple[str, str], float]:
        """Return what is to be corrected together with the guarded metrics, if the judge is one of them."""
        said = self._said()
        return {_GUARDED: said.p_worse} if self.gate.judge == "guard" and said and not self._flaw() else {}

    def findings(self, corrected: Mapping[tuple[str, str], float]) -> Iterator[Finding]:
        """Judge the preference, if `gate.judge` asks for one.

        Args:
            corrected: p-values of losses, corrected over all that is guarded.
        """
        wanted, said, flaw = self.gate.judge, self._said(), self._flaw()
        if wanted == "off":
            return
        if flaw or said is None:
            yield Finding("judge", "open", flaw)
            return
        p_worse = corrected.get(_GUARDED, said.p_worse)
        outcome: Outcome
        if said.share.high < 0.5 and p_worse <= self.alpha:
            outcome, reading = "failed", "significantly less preferred"
        elif wanted == "guard":
            outcome, reading = "passed", "not significantly less preferred"
        elif said.share.low > 0.5 and said.p_better <= self.alpha:
            outcome, reading = "passed", "significantly preferred"
        else:
            outcome, reading = "open", "not shown to be preferred"
        of_loss = outcome == "failed" or wanted == "guard"
        p_value, share = p_worse if of_loss else said.p_better, said.share
        yield Finding(
            "judge",
            outcome,
            f"{said.by[0]} preferred the candidate's answer on {said.wins} of {said.examples} rows and that of "
            f"{self.baseline} on {said.losses}: mean {share.value:.3f}, interval [{share.low:.3f}, {share.high:.3f}], "
            f"p{' of a loss' if of_loss else ''} {spelled_p_value(p_value)}: {reading}.",
            {"value": share.value, "low": share.low, "high": share.high, "p_value": p_value},
        )

    def _said(self) -> Preference | None:
        asked = (each for each in self.report.preferences if (each.kind, each.baseline) == ("judge", self.baseline))
        return next(asked, None)

    def _flaw(self) -> str:
        """Say why the judge decides nothing; empty if it may."""
        said = self._said()
        if said is None:
            return f"The report holds no judgement against {self.baseline}; expected one (gate.judge)."
        if said.problem:
            return f"The judge said nothing that counts: {said.problem}."
        if not said.examples >= self.gate.min_examples:
            return (
                f"{said.examples} rows have the judge's verdict; expected at least {self.gate.min_examples} "
                "(gate.min_examples)."
            )
        share = said.share
        if not is_evidence(share) or not are_probabilities(share.low, share.high, said.p_better, said.p_worse):
            return (
                f"What the judge prefers is no share with an interval and p-values: {share}, p {said.p_better} and "
                f"{said.p_worse}."
            )
        if not said.by or said.wins + said.ties + said.losses != said.examples:
            return (
                f"The judgement by {', '.join(said.by) or 'nobody'} has {said.wins} wins, {said.ties} ties and "
                f"{said.losses} losses on {said.examples} rows; expected a judge, and as many of them as rows."
            )
        return ""
