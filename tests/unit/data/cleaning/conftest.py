import time
from collections.abc import Callable

import pytest

from tasks.contracts.cleaning_config import CleaningStep
from tasks.data.cleaning.line import build_line
from tasks.data.rows import build_row


@pytest.fixture
def row_of():
    """Build a row of a question and an answer; a third text makes it a preference pair."""

    def build(answer: str, question: str = "What is it?", rejected: str | None = None) -> dict:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return build_row(messages, "a.jsonl", "default", rejected=rejected)

    return build


@pytest.fixture
def cleaned_text(row_of):
    """Take one text through one step and return what becomes of it."""

    def clean(text: str, section: CleaningStep) -> str:
        [(_, step)] = build_line((section,), None)._steps
        [row] = step.clean([row_of(text)])
        return row["messages"][-1]["content"]

    return clean


@pytest.fixture
def assert_linear():
    """Assert that four times the text takes about four times as long: sixteen times would be quadratic."""

    def check(run: Callable[[str], object], text_of: Callable[[int], str], size: int) -> None:
        def seconds(text: str) -> float:
            start = time.process_time()
            run(text)
            return time.process_time() - start

        short, long = text_of(size), text_of(4 * size)
        run(short)
        once, four_times = min(seconds(short) for _ in range(3)), min(seconds(long) for _ in range(3))
        assert four_times < 9 * once + 0.005, (once, four_times)
        assert four_times < 10, "linear, but too slow"

    return check
