"""What the metrics share: strings in, a corpus score and the statistics of each example out, without a network."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from tasks.contracts.errors import EvaluationError
from tasks.contracts.hidden_modules import hidden_modules

# evaluate 0.4.6 wants both for its evaluators, and with the first comes torch: 10 s and 270 MB here.
with hidden_modules("transformers", "scipy.stats"):
    import evaluate


class TextMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate carries no types
    """A metric of one answer an example against one reference.

    `compute(predictions=..., references=...)` returns every score under its name, and besides

    - "statistics": score name → array (examples, k), what each example adds to the corpus score;
    - "signature": the library's version, tokenizer, smoothing and the number of examples.

    `score_sums` turns sums of those rows into scores, so a bootstrap need not read the texts again.

    Attributes:
        names: the scores it reports.
    """

    names: ClassVar[tuple[str, ...]]
    summary: ClassVar[str]
    source: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def compute(
        self, *, predictions: Sequence[str] | None = None, references: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Score `predictions` against `references`.

        Raises:
            EvaluationError: there are none, their counts differ, or one is not a string.
        """
        if predictions is not None or references is not None:
            _check("predictions", predictions)
            _check("references", references)
            if len(predictions or ()) != len(references or ()):
                raise EvaluationError(
                    f"there are {len(predictions or ())} predictions for {len(references or ())} references; "
                    "expected one prediction a reference"
                )
        result: dict[str, Any] = super().compute(predictions=predictions, references=references, **options)
        return result

    @abstractmethod
    def score_sums(self, sums: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
        """Return the corpus score (b,) of each of b resamples from its summed statistics (b, k) of `examples` rows."""

    def _build_data_dir(self) -> str:
        return ""  # evaluate would make a cache directory in the home directory although all is kept in memory

    def _info(self) -> Any:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=self.summary,
            citation=self.source,
            inputs_description="predictions and references: a string an example",
            features=features,
        )


def _check(kind: str, texts: Sequence[str] | None) -> None:
    if texts is None or len(texts) == 0:
        raise EvaluationError(f"there are no {kind}; expected a string for each evaluated row")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise EvaluationError(f"number {position} of the {kind} is {text!r}; expected a string")
