"""All metrics of all systems on the same rows, with their intervals and p-values."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np

from tasks.contracts.artifacts import Difference, Interval, Part, Served, SystemName
from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.metric_names import BUILT_IN
from tasks.evaluation.resampling import Measured, common_length, compare
from tasks.evaluation.side_by_side import SideBySide

if TYPE_CHECKING:
    from tasks.evaluation.metrics.text_metric import ExampleMetric

log = logging.getLogger("llm_retrain.evaluation")

SYSTEMS: tuple[str, ...] = get_args(SystemName)
SLOW_SHARE = 0.95
FEWEST_OF_SLICE = 5
"""Rows of a slice that are shown on their own; fewer say nothing."""


class Scored(NamedTuple):
    """Scores, differences, slices and the rest as an `EvalReport` holds them."""

    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Difference]]
    signature: dict[str, str]
    slices: dict[str, Part]
    sets: dict[str, Part]
    served: dict[str, Served]
    of_rows: list[dict[str, dict[str, float]]]
    """A row's own scores: system → metric → score, of corpus metrics that of a corpus of one row."""


def score_systems(rows: SideBySide, evaluation: EvaluationSection) -> Scored:
    """Score every system against the references, over all rows and over those of each slice and set.

    Args:
        rows: references, and the answers of "base", "candidate", and "champion" if there is one.
        evaluation: metrics, and how the intervals and p-values are made.

    Raises:
        EvaluationError: a system is missing or unknown, its answers are not as many as the references, or a metric
            that a user brought fails.
    """
    _check_systems(rows.answers, len(rows.references))
    measured, signature = _measure(rows, evaluation)
    for name in set(evaluation.metrics) - set(measured):
        silent = ", ".join(system for system in rows.answers if system not in rows.likelihoods)
        log.warning("%s is left out: it is not known how likely the references are to %s", name, silent)
    whole = _part_of(measured, evaluation)
    slices = _parts(measured, rows.slices if any(rows.slices) else [], FEWEST_OF_SLICE, evaluation)
    sets = _parts(measured, rows.sets, 1, evaluation)
    served = {system: _served(system, rows, evaluation) for system in whole.scores}
    return Scored(whole.scores, whole.differences, signature, slices, sets, served, _of_rows(measured))


def _of_rows(measured: dict[str, Measured]) -> list[dict[str, dict[str, float]]]:
    scores = {
        name: {system: each.score_sums(rows, 1).tolist() for system, rows in each.statistics.items()}
        for name, each in measured.items()
    }
    systems = list(next(iter(scores.values())))
    return [
        {system: {name: round(by_system[system][row], 4) for name, by_system in scores.items()} for system in systems}
        for row in range(common_length(measured))
    ]


def _served(system: str, rows: SideBySide, evaluation: EvaluationSection) -> Served:
    """Return what a system is like to a single client, and how much its scores vary of themselves."""
    again = rows.again.get(system, {})
    places = list(again)
    changed = sum(rows.answers[system][place] != text for place, text in again.items())
    noise: dict[str, Interval] = {}
    if changed:
        references = [rows.references[place] for place in places]
        answers = {"first": [rows.answers[system][place] for place in places], "candidate": list(again.values())}
        measured, _ = _measure(SideBySide([], [], references, answers), evaluation)
        noise = dict(_part_of(measured, evaluation).differences["first"])
    seconds = rows.seconds.get(system, [])
    return Served(
        bytes=rows.bytes.get(system, 0),
        median_seconds=float(np.median(seconds)) if seconds else None,
        slow_seconds=float(np.quantile(seconds, SLOW_SHARE)) if seconds else None,
        asked_again=len(places),
        changed=changed,
        noise=noise,
    )


def _measure(rows: SideBySide, evaluation: EvaluationSection) -> tuple[dict[str, Measured], dict[str, str]]:
    """Return what each metric says of each example, and what it was computed with."""
    systems = sorted(rows.answers, key=(*SYSTEMS, *rows.answers).index)
    made = (
        f"|ci:{evaluation.confidence}|bs:{evaluation.resamples}|ar:{evaluation.randomisations}|seed:{evaluation.seed}"
    )
    measured, signature = {}, {}
    pairs: dict[str, tuple[Sequence[Any], Sequence[Any]]]
    for metric, names in metrics_for(evaluation.metrics):
        if metric.kind is str:
            pairs = {system: (rows.answers[system], rows.references) for system in systems}
        elif all(system in rows.likelihoods for system in systems):
            pairs = {system: rows.likelihoods[system] for system in systems}
        else:
            continue
        results = {
            system: metric.compute(predictions=predictions, references=references)
            for system, (predictions, references) in pairs.items()
        }
        for name in names:
            statistics = {system: result["statistics"][name] for system, result in results.items()}
            measured[name] = Measured(statistics, metric.score_sums)
            signature[name] = results["candidate"]["signature"] + made
    in_order = [name for name in evaluation.metrics if name in measured]
    return {name: measured[name] for name in in_order}, {name: signature[name] for name in in_order}


def _part_of(measured: dict[str, Measured], evaluation: EvaluationSection) -> Part:
    settings = (evaluation.resamples, evaluation.randomisations, evaluation.confidence, evaluation.seed)
    compared = compare(measured, *settings)
    first = next(iter(compared.values()))
    return Part(
        examples=common_length(measured),
        scores={system: {name: each.scores[system] for name, each in compared.items()} for system in first.scores},
        differences={
            baseline: {name: each.differences[baseline] for name, each in compared.items()}
            for baseline in first.differences
        },
    )


def _parts(
    measured: dict[str, Measured], names: Sequence[str], fewest: int, evaluation: EvaluationSection
) -> dict[str, Part]:
    """Return what the rows of each name say on their own, where there are as many as `fewest`."""
    parts = {}
    for name in sorted(set(names)):
        places = [place for place, its_name in enumerate(names) if its_name == name]
        if len(places) >= fewest:
            parts[name] = _part_of(_only(measured, places), evaluation)
    return parts


def _only(measured: dict[str, Measured], places: list[int]) -> dict[str, Measured]:
    return {
        name: Measured({system: rows[places] for system, rows in each.statistics.items()}, each.score_sums)
        for name, each in measured.items()
    }


def metrics_for(names: tuple[str, ...]) -> "list[tuple[ExampleMetric, list[str]]]":
    """Return the metrics that report these names, and which of them each shall report.

    Imported here because they are slow to import.

    Raises:
        EvaluationError: a metric that a user brought cannot be loaded.
    """
    from tasks.evaluation.metrics.answer_shape import AnswerShape, LengthRatio
    from tasks.evaluation.metrics.bleu import Bleu
    from tasks.evaluation.metrics.chrf import Chrf
    from tasks.evaluation.metrics.exact import Exact
    from tasks.evaluation.metrics.perplexity import Perplexity
    from tasks.evaluation.metrics.reference_nats import ReferenceNats
    from tasks.evaluation.metrics.rouge import Rouge
    from tasks.evaluation.metrics.structured import Structured
    from tasks.evaluation.metrics.user_metric import UserMetric

    found: list[tuple[ExampleMetric, list[str]]] = []
    for kind in (Rouge, Bleu, Chrf, Exact, Structured, Perplexity, ReferenceNats, LengthRatio, AnswerShape):
        wanted = [name for name in kind.names if name in names]
        if wanted:
            found.append((kind(), wanted))
    return found + [(UserMetric(name), [name]) for name in dict.fromkeys(names) if name not in BUILT_IN]


def _check_systems(answers: dict[str, list[str]], references: int) -> None:
    unknown = set(answers) - set(SYSTEMS)
    if unknown or not {"base", "candidate"} <= set(answers):
        raise EvaluationError(
            f"the systems are {', '.join(sorted(answers)) or 'none'}; expected base and candidate, and champion if any"
        )
    for system, texts in answers.items():
        if len(texts) != references:
            raise EvaluationError(f"{system} has {len(texts)} answers for {references} references; expected as many")
