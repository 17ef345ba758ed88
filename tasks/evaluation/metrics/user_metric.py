"""Metrics that users bring along, by an entry point of their package."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tasks.contracts.errors import EvaluationError
from tasks.contracts.metric_names import ENTRY_POINT_GROUP, brought_along, user_metric
from tasks.evaluation.metrics.mean_metric import MeanMetric

Score = Callable[[str, str], float]


class UserMetric(MeanMetric):
    """The mean of a function (answer, reference) → number, the higher the better, over the examples.

    Attributes:
        names: the name of the entry point.
    """

    summary = "A metric that an installed package brings."
    source = "the package that brings it"

    def __init__(self, name: str) -> None:
        """Load the function that the entry point names.

        Raises:
            EvaluationError: there is no such entry point, or it cannot be loaded.
        """
        super().__init__()
        self.names = (name,)  # type: ignore[misc]  # one class for all that users bring
        point = user_metric(name)
        if point is None:
            raise EvaluationError(f"no installed package brings the metric {name!r} (entry point {ENTRY_POINT_GROUP})")
        try:
            self._function: Score = point.load()
        except Exception as error:  # whatever importing a user's module raises
            raise EvaluationError(f"the metric {name!r} ({point.value}) cannot be loaded: {error!r}") from error
        self.spelling = brought_along(name)  # type: ignore[misc]

    def score_example(self, answer: str, reference: str) -> tuple[float, ...]:
        """Return what the user's function says.

        Raises:
            EvaluationError: it raises, or returns no finite number.
        """
        (name,) = self.names
        try:
            score: Any = self._function(answer, reference)
        except Exception as error:  # whatever a user's function raises
            raise EvaluationError(f"the metric {name!r} failed on the answer {answer[:80]!r}: {error!r}") from error
        if not isinstance(score, int | float | np.number) or not math.isfinite(score):
            raise EvaluationError(
                f"the metric {name!r} returned {score!r} for the answer {answer[:80]!r}; expected a finite number"
            )
        return (float(score),)
