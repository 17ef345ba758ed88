"""How surprised the served model is by each reference: the logarithm of perplexity, every row counting alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.metrics.text_metric import ExampleMetric


class ReferenceNats(ExampleMetric):
    """Minus the mean log probability of a reference's token (nats), averaged over the rows; 0 or more.

    `predictions` and `references` are as those of `Perplexity`. A row counts as much as any other, however many tokens
    its reference has: of texts in several scripts the one with most tokens a word would else be all that is seen.
    """

    names = ("reference_nats",)
    summary = "Minus the log probability of a token of a reference, under the served model; the mean over the rows."
    source = "Cover and Thomas, Elements of Information Theory, 2006, section 2.8"
    kind = float

    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the mean of each row of sums: nats a token."""
        means: NDArray[np.float64] = sums[:, 0] / examples
        return means

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, Any]:
        nats, tokens = np.array(predictions, dtype=float), np.array(references, dtype=float)
        rows = np.divide(nats, tokens, out=np.zeros_like(nats), where=tokens > 0)[:, None]  # (n, 1)
        return {
            "reference_nats": float(rows.mean()),
            "statistics": {"reference_nats": rows},
            "signature": f"reference_nats|of:reference and end token|engine:as served|version:1|examples:{len(rows)}",
        }
