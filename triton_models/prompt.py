"""From a conversation to prompt tokens and from generated tokens to an answer: the same for every engine."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


@dataclass(frozen=True)
class Answer:
    """What an engine generated.

    Attributes:
        text: the answer without surrounding white space and special tokens.
        prompt_tokens: tokens of the rendered conversation.
        new_tokens: generated tokens, the stop token not counted.
        finish_reason: "stop" if the model ended the answer, "length" if it was cut.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Likelihood:
    """How a model takes an answer that it did not give.

    Attributes:
        nats: minus the natural logarithm of the probability that it gives the whole answer, end token included.
        tokens: the answer's tokens, end token included.
        likeliest: how many of them the model finds the likeliest.
    """

    nats: float
    tokens: int
    likeliest: int


class PromptFormat:
    """Chat template, tokenizer and limits of one servable model (`servable.json`, `tokenizer.json`)."""

    def __init__(self, directory: Path) -> None:
        settings = json.loads((directory / "servable.json").read_text(encoding="utf-8"))
        self.stop_token_ids = frozenset(int(token) for token in settings["stop_token_ids"])
        self.max_new_tokens = int(settings["max_new_tokens"])
        self.context_tokens = int(settings["context_tokens"])
        self._system_prompt = str(settings["system_prompt"])
        self._template = ChatTemplate(
            settings["chat_template"], settings["template_date"], settings["bos_token"], settings["eos_token"]
        )
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # tokenizer.json may ask for truncation or padding, as training wanted it; serving wants the prompt as it is.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the conversation as text, by default as the prompt that the model continues.

        Raises:
            ValueError: the chat template refuses the conversation.
        """
        if self._system_prompt and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": self._system_prompt}, *messages]
        return self._template.render(messages, add_generation_prompt)

    def encode(self, messages: list[dict[str, str]], max_new_tokens: int | None = None) -> tuple[list[int], int]:
        """Return the prompt's tokens and how many tokens may be generated after them.

        Raises:
            ValueError: the chat template refuses the conversation, or the prompt leaves no room for an answer.
        """
        tokens: list[int] = self._tokenizer.encode(self.render(messages), add_special_tokens=False).ids
        room_tokens = self.context_tokens - len(tokens)
        if room_tokens < 1:
            raise ValueError(
                f"the conversation has {len(tokens)} tokens, which leaves no room for an answer "
                f"in the model's context of {self.context_tokens} tokens"
            )
        return tokens, min(max_new_tokens or self.max_new_tokens, room_tokens)

    def encode_answer(self, messages: list[dict[str, str]], answer: str) -> list[int]:
        """Return the tokens of an answer, up to and with the token that ends it, as the template spells it.

        Where the template spells a finished conversation otherwise than it begins an answer, these are the answer's own
        tokens and the first end token.
        """
        prompt = self.render(messages)
        try:
            whole = self.render([*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        except ValueError:
            whole = ""
        if whole.startswith(prompt):
            tokens: list[int] = self._tokenizer.encode(whole[len(prompt) :], add_special_tokens=False).ids
            end = next((place for place, token in enumerate(tokens) if token in self.stop_token_ids), None)
            if end is not None:
                return tokens[: end + 1]
        return [*self._tokenizer.encode(answer, add_special_tokens=False).ids, min(self.stop_token_ids)]

    def answer(self, prompt_tokens: int, new_tokens: list[int], stopped: bool) -> Answer:
        """Spell generated tokens (without the stop token) as an answer."""
        text = self._tokenizer.decode(new_tokens, skip_special_tokens=True).strip()
        return Answer(text, prompt_tokens, len(new_tokens), "stop" if stopped else "length")


class ChatTemplate:
    """A compiled chat template, for training and for serving, spelled as transformers' `apply_chat_template` does.

    But for one thing: `strftime_now` tells a fixed date and not today's. A servable that saw other prompts every day
    would not be the one that was trained and evaluated.
    """

    def __init__(self, source: str, date: str, bos_token: str, eos_token: str) -> None:
        """Compile in the sandbox, with the globals and filters that transformers 5 gives a template.

        Args:
            source: the template.
            date: what `strftime_now` tells, ISO 8601.
            bos_token: as the tokenizer spells it; empty if it has none.
            eos_token: likewise.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = datetime.fromisoformat(date).strftime
        self._template = environment.from_string(source)
        # transformers leaves a special token that a tokenizer lacks undefined in the template.
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._special_tokens = {name: token for name, token in tokens.items() if token}

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the conversation as text, by default up to where the model's answer begins.

        Raises:
            ValueError: the chat template refuses the conversation.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template refuses this conversation: {error}") from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja's own filter it does not escape HTML, because a model is no browser."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's words for training; in serving its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja reads a plain class attribute

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
