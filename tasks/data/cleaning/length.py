"""Rows too short or too long, counted in tokens of the base model's own tokenizer."""

from collections.abc import Sequence
from pathlib import Path

from tasks.contracts.cleaning_config import LengthStep
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.step import REJECTED, Dropped
from tasks.data.cleaning.token_counter import TokenCounter
from tasks.data.rows import Row, answer_of

SHORT_ANSWER = "answer too short"
LONG_ANSWER = "answer too long"
LONG_ROW = "row too long"

Bounds = tuple[float, float]


class Length:
    """Drops rows outside the bounds; the rejected answer of a preference pair is bounded like the answer.

    Tokens of the texts alone are counted, without what a chat template puts around them. Most rows are decided by
    their bytes alone (`TokenCounter.bounds`); only the others are encoded.

    Raises:
        ConfigError: there is no tokenizer, or its file cannot be read.
    """

    name = "length"

    def __init__(self, section: LengthStep, tokenizer_path: Path | None) -> None:
        if tokenizer_path is None:
            raise ConfigError("a length step counts tokens, but there is no tokenizer; expected a base model with one")
        self._min_answer = section.min_answer_tokens
        self._max_answer = section.max_answer_tokens or float("inf")
        self._max_row = section.max_row_tokens or float("inf")
        self._counter = TokenCounter(tokenizer_path)

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row, or why it is dropped."""
        verdicts = [self._verdict(row, list(map(self._counter.bounds, _texts(row)))) for row in rows]
        undecided = [number for number, verdict in enumerate(verdicts) if verdict is None]
        if undecided:
            texts = [_texts(rows[number]) for number in undecided]
            counts = iter(self._counter.counts([text for some in texts for text in some]))
            for number, some in zip(undecided, texts, strict=True):
                exact = [(count, count) for count in (next(counts) for _ in some)]
                verdicts[number] = self._verdict(rows[number], exact)
        return [verdict for verdict in verdicts if verdict is not None]

    def _verdict(self, row: Row, bounds: Sequence[Bounds]) -> Row | Dropped | None:
        """Return the row, why it is dropped, or None where the bounds of its texts do not decide it."""
        answers = bounds[-2:] if REJECTED in row else bounds[-1:]
        prompt = bounds[: -len(answers)]
        for lowest, highest in answers:
            if highest < self._min_answer:
                return Dropped(SHORT_ANSWER, f"fewer than {self._min_answer} tokens (min_answer_tokens)")
            if lowest < self._min_answer:
                return None
        for lowest, highest in answers:
            if lowest > self._max_answer:
                return Dropped(LONG_ANSWER, f"more than {self._max_answer} tokens (max_answer_tokens)")
            if highest > self._max_answer:
                return None
        lowest = sum(low for low, _ in prompt) + max(low for low, _ in answers)
        highest = sum(high for _, high in prompt) + max(high for _, high in answers)
        if lowest > self._max_row:
            return Dropped(LONG_ROW, f"more than {self._max_row} tokens (max_row_tokens)")
        return row if highest <= self._max_row else None


def _texts(row: Row) -> list[str]:
    """Return the contents of the messages, and the rejected answer at the end."""
    texts = [message["content"] for message in row["messages"][:-1]] + [answer_of(row)]
    return [*texts, row[REJECTED]] if REJECTED in row else texts
