"""The metrics by name: which way each gets better, and on what scale; and those that users bring along."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

ENTRY_POINT_GROUP = "llm_retrain.metrics"
"""Packages that bring a metric name it here: `my_metric = my_package.module:function`."""


@dataclass(frozen=True)
class MetricFacts:
    """What a reader and the gate must know of a metric.

    Attributes:
        better: which way is better; "neither" for what describes and does not judge.
        decimals: how many are worth printing.
        says: what it measures, with its unit.
    """

    better: Literal["higher", "lower", "neither"]
    decimals: int
    says: str


BUILT_IN: dict[str, MetricFacts] = {
    "rouge1": MetricFacts("higher", 3, "F1 of common words, 0 to 1"),
    "rouge2": MetricFacts("higher", 3, "F1 of common word pairs, 0 to 1"),
    "rougeL": MetricFacts("higher", 3, "F1 of the longest common subsequence of words, 0 to 1"),
    "rougeLsum": MetricFacts("higher", 3, "ROUGE-L line by line, 0 to 1"),
    "bleu": MetricFacts("higher", 1, "n-gram precision of the whole set with a brevity penalty, 0 to 100"),
    "chrf": MetricFacts("higher", 1, "F-score of character n-grams of the whole set, 0 to 100"),
    "exact_match": MetricFacts("higher", 3, "share of answers that are the reference"),
    "token_f1": MetricFacts("higher", 3, "F1 of common words without articles, 0 to 1"),
    "json_valid": MetricFacts("higher", 3, "share of answers that are JSON"),
    "field_accuracy": MetricFacts(
        "higher", 3, "share of the reference's JSON fields that the answer has with their value"
    ),
    "perplexity": MetricFacts("lower", 2, "of the references, a token"),
    "reference_nats": MetricFacts(
        "lower", 3, "minus the log probability of a reference's token, the mean over the rows"
    ),
    "length_ratio": MetricFacts("neither", 2, "words of the answers to words of the references"),
    "repetition": MetricFacts("lower", 3, "share of an answer's 4-grams that it has said before"),
    "refusal_rate": MetricFacts("lower", 3, "share of answers that refuse, by their wording"),
    "empty_rate": MetricFacts("lower", 3, "share of answers without a letter, digit or symbol"),
}

DEFAULT_METRICS = tuple(name for name in BUILT_IN if name not in ("json_valid", "field_accuracy", "reference_nats"))


def facts_of(name: str) -> MetricFacts:
    """Return the facts of a metric; one that a user brought is better the higher it is, as its contract says."""
    return BUILT_IN.get(name, MetricFacts("higher", 3, "a metric of your own, the mean over the answers"))


def user_metric(name: str) -> EntryPoint | None:
    """Return the entry point of a metric that an installed package brings, or None."""
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)


def brought_along(name: str) -> str:
    """Spell where a user's metric comes from, with its package's version: what its scores depend on."""
    point = user_metric(name)
    package = f"{point.dist.name}:{point.dist.version}" if point and point.dist else "no package"
    return f"{name}|{point.value if point else 'nowhere'}|{package}"


def _is_known(name: str) -> str:
    if name not in BUILT_IN and user_metric(name) is None:
        brought = sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))
        raise ValueError(f"expected one of {', '.join((*BUILT_IN, *brought))}")
    return name


def _is_judged_by(name: str) -> str:
    if facts_of(name).better == "neither":
        raise ValueError(f"{name} describes answers and is neither better high nor low; expected another metric")
    return name


MetricName = Annotated[str, AfterValidator(_is_known), WithJsonSchema({"type": "string", "examples": list(BUILT_IN)})]
JudgedMetric = Annotated[MetricName, AfterValidator(_is_judged_by)]
