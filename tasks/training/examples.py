"""From canonical rows to token ids: the prompt as the server will see it, and the answer that is learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One row as token ids; the loss counts the answer's tokens only."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


def with_system_prompt(messages: Sequence[dict[str, str]], system_prompt: str) -> list[dict[str, str]]:
    """Put the configured system prompt before a conversation that has none, as the server does."""
    if system_prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": system_prompt}, *messages]
    return list(messages)


def encode_row(row: dict[str, Any], tokenizer: Any, template: Any, system_prompt: str) -> Example:
    """Encode one canonical row.

    The prompt ends where generation starts when serving. The answer is the rest of the rendered conversation up to
    and including its end-of-turn token, which is what teaches the model to stop; nothing is masked by token id,
    because padding and end of turn may share one.

    Args:
        row: its last message is the answer.
        tokenizer: of the base model.
        template: its chat template, as `load_chat_template` returns it.
        system_prompt: put before a conversation that has none.

    Raises:
        ValueError: the chat template refuses the conversation.
    """
    messages = with_system_prompt(row["messages"], system_prompt)
    prompt = template.render(messages[:-1])
    whole = template.render(messages, add_generation_prompt=False)
    answer = whole[len(prompt) :] if whole.startswith(prompt) else messages[-1]["content"] + tokenizer.eos_token
    end = answer.rfind(tokenizer.eos_token)
    answer = answer[: end + len(tokenizer.eos_token)] if end >= 0 else answer + tokenizer.eos_token
    return Example(
        prompt_ids=tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"]),
        answer_ids=tuple(tokenizer(answer, add_special_tokens=False)["input_ids"]),
    )


def batches_by_length(lengths: Sequence[int], batch_rows: int) -> list[list[int]]:
    """Group row numbers of similar length, so that little is padded; ties keep their order."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
