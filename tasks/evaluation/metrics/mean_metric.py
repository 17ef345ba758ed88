"""Metrics that are the mean of what each example scores."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.text_metric import TextMetric


class MeanMetric(TextMetric):
    """A metric whose score is the mean over the examples.

    Attributes:
        spelling: the part of the signature that says how it is computed; its version grows when a score can change.
    """

    spelling: ClassVar[str]

    @abstractmethod
    def score_example(self, answer: str, reference: str) -> tuple[float, ...]:
        """Return the scores of one answer, in the order of `names`."""

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the mean of the examples' scores."""
        means: NDArray[np.float64] = sums[:, 0] / examples
        return means

    def _compute(self, *, predictions: list[str], references: list[str]) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        scores = np.array([self.score_example(answer, reference) for answer, reference in pairs], dtype=float)
        return {
            **{name: float(scores[:, column].mean()) for column, name in enumerate(self.names)},
            "statistics": {name: scores[:, column : column + 1] for column, name in enumerate(self.names)},
            "signature": f"{self.spelling}|examples:{len(scores)}",
        }
