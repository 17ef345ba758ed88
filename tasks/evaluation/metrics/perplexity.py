"""Perplexity of the references: how much the served model is surprised by what should have been answered."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.sufficient_statistics import divided
from tasks.evaluation.metrics.text_metric import ExampleMetric


class Perplexity(ExampleMetric):
    """exp of the mean negative log probability of a reference's token, over the tokens of all references; 1 or more.

    `predictions` are the negative log probabilities (nats) of whole references with their end token, given their
    prompts, as the served engine has them; `references` are their numbers of tokens. Only models with the same
    tokenizer can be compared.
    """

    names = ("perplexity",)
    summary = "Perplexity of the references, a token, under the served model."
    source = "Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks, 1977"
    kind = float

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the perplexity of each row of sums: nats, tokens."""
        with np.errstate(over="ignore"):
            perplexities: NDArray[np.float64] = np.exp(divided(sums[:, 0], sums[:, 1]))
        return perplexities

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, Any]:
        sums = np.array([predictions, references], dtype=float).T  # (n, [nats, tokens])
        return {
            "perplexity": float(self.score_sums(sums.sum(axis=0, keepdims=True), len(sums))[0]),
            "statistics": {"perplexity": sums},
            "signature": f"perplexity|of:reference and end token|engine:as served|version:1|examples:{len(sums)}",
        }
