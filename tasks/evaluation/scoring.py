"""All metrics of all systems on the same rows, with their intervals."""

from typing import TYPE_CHECKING, NamedTuple, get_args

from tasks.contracts.artifacts import Interval, SystemName
from tasks.contracts.config import EvaluationSection
from tasks.contracts.errors import EvaluationError
from tasks.evaluation.statistics import paired_bootstrap

if TYPE_CHECKING:
    from tasks.evaluation.metrics.text_metric import TextMetric

SYSTEMS: tuple[str, ...] = get_args(SystemName)


class Scored(NamedTuple):
    """Scores, differences and signature as an `EvalReport` holds them."""

    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    signature: dict[str, str]


def score_systems(answers: dict[str, list[str]], references: list[str], evaluation: EvaluationSection) -> Scored:
    """Score every system against the references.

    Args:
        answers: system → an answer a reference; "base" and "candidate", and "champion" if there is one.
        references: what should have been answered.
        evaluation: resamples, confidence and seed of the intervals.

    Raises:
        EvaluationError: a system is missing or unknown, or its answers are not as many as the references.
    """
    _check_systems(answers, len(references))
    systems = [system for system in SYSTEMS if system in answers]
    scored = Scored({system: {} for system in systems}, {system: {} for system in systems if system != "candidate"}, {})
    for metric in _metrics():
        results = {system: metric.compute(predictions=answers[system], references=references) for system in systems}
        for name in metric.names:
            intervals = paired_bootstrap(
                {system: results[system]["statistics"][name] for system in systems},
                metric.score_sums,
                evaluation.resamples,
                evaluation.confidence,
                evaluation.seed,
            )
            for system, interval in intervals.scores.items():
                scored.scores[system][name] = interval
            for baseline, interval in intervals.differences.items():
                scored.differences[baseline][name] = interval
            scored.signature[name] = (
                f"{results['candidate']['signature']}|ci:{evaluation.confidence}|bs:{evaluation.resamples}"
                f"|seed:{evaluation.seed}"
            )
    return scored


def _metrics() -> "list[TextMetric]":
    """Return the metrics in the order of the report; imported here because they are slow to import."""
    from tasks.evaluation.metrics.bleu import Bleu
    from tasks.evaluation.metrics.chrf import Chrf
    from tasks.evaluation.metrics.rouge import Rouge

    return [Rouge(), Bleu(), Chrf()]


def _check_systems(answers: dict[str, list[str]], references: int) -> None:
    unknown = set(answers) - set(SYSTEMS)
    if unknown or not {"base", "candidate"} <= set(answers):
        raise EvaluationError(
            f"the systems are {', '.join(sorted(answers)) or 'none'}; expected base and candidate, and champion if any"
        )
    for system, texts in answers.items():
        if len(texts) != references:
            raise EvaluationError(f"{system} has {len(texts)} answers for {references} references; expected as many")
