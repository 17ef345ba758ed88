"""From canonical rows to token ids: the prompt as the server will see it, and the answer that is learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.contracts.engine import load_chat_template
from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.training_config import TrainingSection


@dataclass(frozen=True)
class Example:
    """One row as token ids; the loss counts the answer's tokens only.

    `rejected_ids` are the answer that was not chosen, of rows for preference tuning.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + max(len(self.answer_ids), len(self.rejected_ids))

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model: of a pair, the prompt passes with either answer."""
        rejected = len(self.prompt_ids) + len(self.rejected_ids) if self.rejected_ids else 0
        return len(self.prompt_ids) + len(self.answer_ids) + rejected


@dataclass(frozen=True)
class EncodedRows:
    """The rows that are trained on, and how many were too long and left out, or cut off."""

    examples: list[Example]
    left_out: int = 0
    cut_off: int = 0


class RowEncoder:
    """Encodes canonical rows with a tokenizer, its chat template and the configured system prompt."""

    def __init__(self, tokenizer: Any, system_prompt: str) -> None:
        self._tokenizer = tokenizer
        self._template = load_chat_template(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)
        self._system_prompt = system_prompt

    def encode(self, row: dict[str, Any]) -> Example:
        """Encode one canonical row.

        The prompt ends where generation starts when serving. The answer is the rest of the rendered conversation up to
        and including its end-of-turn token, which is what teaches the model to stop; nothing is masked by token id,
        because padding and end of turn may share one.

        Args:
            row: its last message is the answer; "rejected", where it is there, an answer that was not chosen.

        Raises:
            ValueError: the chat template refuses the conversation.
        """
        messages = with_system_prompt(row["messages"], self._system_prompt)
        prompt = self._template.render(messages[:-1])
        rejected = row.get("rejected")
        return Example(
            prompt_ids=self._ids(prompt),
            answer_ids=self._ids(self._answer(messages, prompt)),
            rejected_ids=()
            if rejected is None
            else self._ids(self._answer([*messages[:-1], {"role": "assistant", "content": rejected}], prompt)),
        )

    def _answer(self, messages: list[dict[str, str]], prompt: str) -> str:
        end_of_turn: str = self._tokenizer.eos_token
        whole: str = self._template.render(messages, add_generation_prompt=False)
        answer = whole[len(prompt) :] if whole.startswith(prompt) else messages[-1]["content"] + end_of_turn
        end = answer.rfind(end_of_turn)
        return answer[: end + len(end_of_turn)] if end >= 0 else answer + end_of_turn

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def with_system_prompt(messages: Sequence[dict[str, str]], system_prompt: str) -> list[dict[str, str]]:
    """Put the configured system prompt before a conversation that has none, as the server does."""
    if system_prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": system_prompt}, *messages]
    return list(messages)


def encode_rows(
    path: Path, encoder: RowEncoder, training: TrainingSection, longest: int, whose: str = ""
) -> EncodedRows:
    """Encode the rows of a file; those with more than `longest` tokens are left out or cut off, and counted.

    Args:
        path: canonical rows.
        encoder: makes tokens of them.
        training: says what becomes of long rows, and what is minimised.
        longest: tokens a row may have.
        whose: the config key that names the rows, for a message; empty: those of the data set.

    Raises:
        TrainingError: the chat template refuses a row, no row fits, or the objective is dpo and a row has no rejected
            answer.
    """
    examples = _encoded(path, encoder, whose)
    rows = f"{len(examples)} rows of {whose}" if whose else f"{len(examples)} rows"
    if training.objective == "dpo":
        without = sum(not example.rejected_ids for example in examples)
        if without:
            raise TrainingError(
                f"training.objective is dpo, and {without} of {rows} have no rejected answer; "
                "expected rows with chosen and rejected, or training.objective sft"
            )
    else:
        examples = [replace(example, rejected_ids=()) for example in examples]
    fitting = [fitted(example, longest, training.long_rows) for example in examples]
    kept = [example for example in fitting if example is not None]
    if not kept:
        raise TrainingError(
            f"training.max_length_tokens is {training.max_length_tokens}, and none of the {rows} fits"
            + (
                f" in the {longest} tokens that the context has room for"
                if longest < training.max_length_tokens
                else ""
            )
        )
    cut_off = sum(fit is not None and fit != example for fit, example in zip(fitting, examples, strict=True))
    return EncodedRows(kept, left_out=len(examples) - len(kept), cut_off=cut_off)


def _encoded(path: Path, encoder: RowEncoder, whose: str) -> list[Example]:
    """Encode all rows, or count those that the chat template refuses, as one that wants roles to take turns does."""
    examples, refused = [], []
    for row in read_jsonl(path):
        try:
            examples.append(encoder.encode(row))
        except ValueError as error:
            refused.append((row["id"], error))
    if refused:
        (first, reason), rows = refused[0], f"{len(examples) + len(refused)} rows" + (f" of {whose}" if whose else "")
        raise TrainingError(
            f"{len(refused)} of {rows} cannot be spelled, first {first}: {reason}; leave them out, or give another "
            "base_model.chat_template or serving.system_prompt"
        )
    return examples


def fitted(example: Example, longest: int, long_rows: str) -> Example | None:
    """Return the example if it has at most `longest` tokens, or with its answers cut off if `long_rows` is "truncate".

    An answer that is cut off has no end-of-turn token, so that stopping there is not learned. None if nothing of an
    answer is left.
    """
    if len(example) <= longest:
        return example
    room = longest - len(example.prompt_ids)
    if long_rows == "drop" or room < 1:
        return None
    return Example(example.prompt_ids, example.answer_ids[:room], example.rejected_ids[:room])
