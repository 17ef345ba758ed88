import pytest

from tasks.data.rows import build_row


@pytest.fixture
def row_of():
    """Build a row of a question and an answer."""

    def build(question: str, answer: str = "yes", rejected: str | None = None) -> dict:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return build_row(messages, "a.jsonl", "default", {"file": "x"}, rejected)

    return build
