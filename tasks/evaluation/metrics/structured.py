"""Answers that shall be JSON: whether they are, and how much of what they shall hold they hold."""

import json
import re
from typing import Any

from tasks.evaluation.metrics.mean_metric import MeanMetric

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL | re.IGNORECASE)
_DEEPEST = 200


class Structured(MeanMetric):
    """JSON validity and field accuracy, means over the examples, 0 to 1.

    A field is a path to a plain value ("items.0.price"); it is right if the answer has the same value in the same
    place: true is not 1, and 1 is 1.0. Fields that only the answer has count against it, so that nobody wins by saying
    everything: right fields to the fields of either. A fence of markdown around an answer is taken off.
    """

    names = ("json_valid", "field_accuracy")
    summary = "Share of answers that are JSON, and mean share of right fields among those of answer and reference."
    source = "Jaccard index of the sets of (path, value)"
    spelling = "structured|fields:path and value|fences:taken off|version:1"

    def score_example(self, answer: str, reference: str) -> tuple[float, float]:
        """Return whether the answer is JSON, and the share of right fields."""
        found, expected = _parsed(answer), _parsed(reference)
        if found is _INVALID:
            return 0.0, 0.0
        if expected is _INVALID:
            return 1.0, 0.0
        given, wanted = set(_fields(found)), set(_fields(expected))
        return 1.0, len(given & wanted) / len(given | wanted)


_INVALID = object()


def _parsed(text: str) -> Any:
    """Return the JSON value of a text, or `_INVALID`; NaN and infinity, which Python would take, are no JSON."""
    stripped = text.strip()
    fenced = _FENCED.match(stripped)
    try:
        return json.loads(fenced[1] if fenced else stripped, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _INVALID


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _fields(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str, Any]]:
    """Return path, kind and value of every leaf; an empty object or list is a leaf, and so is what is nested deeply."""
    if len(path) < _DEEPEST:
        if isinstance(value, dict) and value:
            return [field for key, below in value.items() for field in _fields(below, (*path, f".{key}"))]
        if isinstance(value, list) and value:
            return [field for place, below in enumerate(value) for field in _fields(below, (*path, f"[{place}]"))]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [(path, "number", value)]
    return [(path, "other", json.dumps(value))]
