"""What the metrics share: an input an example in, a corpus score and the statistics of each example out, offline."""

import math
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


class ExampleMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate carries no types
    """A metric of one prediction an example against one reference, of whatever kind.

    `compute(predictions=..., references=...)` returns every score under its name, and besides

    - "statistics": score name → array (examples, k), what each example adds to the corpus score;
    - "signature": the library's version, tokenizer, smoothing and the number of examples.

    `score_sums` turns sums of those rows into scores, so a bootstrap need not read the texts again.

    Attributes:
        names: the scores it reports.
        kind: of what it takes.
    """

    names: ClassVar[tuple[str, ...]]
    summary: ClassVar[str]
    source: ClassVar[str]
    kind: ClassVar[type] = str

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def compute(
        self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Score `predictions` against `references`.

        Raises:
            EvaluationError: there are none, their counts differ, or one is not of the metric's kind.
        """
        if predictions is not None or references is not None:
            _check("predictions", predictions, self.kind)
            _check("references", references, self.kind)
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
        value = datasets.Value("string" if self.kind is str else "float64")
        features = datasets.Features({"predictions": value, "references": value})
        return evaluate.MetricInfo(
            description=self.summary,
            citation=self.source,
            inputs_description=f"predictions and references: a {_SPELLED[self.kind]} an example",
            features=features,
        )


class TextMetric(ExampleMetric):
    """A metric of one answer an example against one reference, both text."""


_SPELLED = {str: "string", float: "finite number"}


def _check(what: str, values: Sequence[Any] | None, kind: type) -> None:
    if values is None or len(values) == 0:
        raise EvaluationError(f"there are no {what}; expected a {_SPELLED[kind]} for each evaluated row")
    for position, value in enumerate(values):
        if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
            raise EvaluationError(f"number {position} of the {what} is {value!r}; expected a {_SPELLED[kind]}")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in _not_ascii(value)):
            raise EvaluationError(
                f"number {position} of the {what} holds half of a surrogate pair; expected text that has UTF-8"
            )


def _not_ascii(text: str) -> str:
    return "" if text.isascii() else text
