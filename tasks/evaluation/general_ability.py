"""The gate's rule on forgetting: a loss on the general-ability set must be ruled out."""

from collections.abc import Iterator

from tasks.contracts.artifacts import EvalReport, Finding, Interval, Outcome
from tasks.contracts.evaluation_config import GateSection
from tasks.contracts.evaluation_sets import GENERAL_ABILITY
from tasks.evaluation.significance import expanded, is_evidence

_METRIC = "reference_nats"
_WHAT_TO_DO = (
    "fewer epochs, a lower training.learning_rate or replayed rows (training.replay) forget less, and with "
    "evaluation.general false nobody asks"
)


def general_ability(report: EvalReport, gate: GateSection) -> Iterator[Finding]:
    """Yield whether the candidate can still do what the base model can, if that was asked.

    Non-inferiority (as with protected slices): it passes if the interval of the loss, `expanded` for its number of
    rows, lies below `gate.general_margin`, fails if it lies above, and is open otherwise. The baseline is the base
    model also where there is a champion. Every candidate is made from the base, so the loss against it is all that was
    forgotten; margins against each champion in turn would add up over the cycles.

    Args:
        report: with the figures of the general-ability set.
        gate: the margin, and how many rows say anything.
    """
    general = report.general
    if general is None:
        return
    of = f"{_METRIC} (lower is better) of the general-ability set ({general.examples} rows)"
    allowed = f"{gate.general_margin:g} (gate.general_margin)"
    seen = general.differences.get("base", {}).get(_METRIC)
    if not general.examples >= gate.min_slice_examples:
        few = f"The general-ability set has {general.examples} rows; expected at least {gate.min_slice_examples}"
        yield Finding(GENERAL_ABILITY, "open", f"{few} (gate.min_slice_examples).", {"rows": general.examples})
    elif seen is None:
        silent = "The engine does not say how likely references are, so it is not known what was forgotten"
        yield Finding(GENERAL_ABILITY, "open", f"{silent}; to do without, set evaluation.general to false.")
    elif not is_evidence(seen):
        broken = f"{of} changed by no number with an interval: {seen}; a loss of {allowed} is not ruled out."
        yield Finding(GENERAL_ABILITY, "open", broken)
    else:
        yield _judged(expanded(seen, general.examples, report.confidence), gate.general_margin, of, allowed)


def _judged(loss: Interval, margin: float, of: str, allowed: str) -> Finding:
    outcome: Outcome
    if loss.high < margin:
        outcome, reading = "passed", f"a loss of {allowed} is ruled out"
    elif loss.low > margin:
        outcome, reading = "failed", f"more than {allowed} is lost; {_WHAT_TO_DO}"
    else:
        outcome, reading = "open", f"a loss of {allowed} is not ruled out"
    figures = {"value": loss.value, "low": loss.low, "high": loss.high}
    interval = f"interval [{loss.low:+.4g}, {loss.high:+.4g}]"
    sentence = f"{of} changed by {loss.value:+.4g} against base, {interval}: {reading}."
    return Finding(GENERAL_ABILITY, outcome, sentence, figures)
