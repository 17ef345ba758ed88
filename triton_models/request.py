"""The request that clients send: one prompt or one conversation, and how long the answer may be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        messages: the conversation, role and content each; ends with what the model is to answer.
        max_new_tokens: the client's limit, or None for the model's own.
    """

    messages: list[dict[str, str]]
    max_new_tokens: int | None


def parse_request(fields: Mapping[str, str], parameters: str = "") -> Request:
    """Check the string inputs of a request.

    Args:
        fields: the inputs that are present: `text_input` or `messages`, and perhaps `sampling_parameters`.
        parameters: Triton request parameters as JSON: what the JSON body of `generate` holds beside the inputs. Only
            `id` and `stream: false` are known; another one must not be silently ignored.

    Raises:
        ValueError: says in one sentence what is wrong; it is sent to the client.
    """
    for name, value in (json.loads(parameters) if parameters else {}).items():
        # Clients of streaming servers say that they want the whole answer at once; that is what they get.
        if name != "id" and (name, value) != ("stream", False):
            raise ValueError(f"unknown field {name!r}; the answer's length is set by max_tokens in sampling_parameters")
    return Request(conversation_of(fields), _parse_sampling_parameters(fields.get("sampling_parameters", "")))


def id_of(request_id: str, parameters: str = "") -> str | None:
    """Return the client's own id of a request, from the protocol's field or the `id` of a `generate` body."""
    named = json.loads(parameters).get("id") if parameters else None
    return request_id or (None if named is None else str(named))


def conversation_of(fields: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the conversation that the inputs hold.

    Raises:
        ValueError: neither or both of `text_input` and `messages` are given, or one is empty or malformed.
    """
    given = [name for name in ("text_input", "messages") if name in fields]
    if len(given) != 1:
        raise ValueError(f"exactly one of text_input and messages is needed, {'both' if given else 'neither'} given")
    if given == ["messages"]:
        return _parse_messages(fields["messages"])
    if not fields["text_input"].strip():
        raise ValueError("text_input is empty")
    return [{"role": "user", "content": fields["text_input"]}]


def _parse_messages(text: str) -> list[dict[str, str]]:
    messages = _parse_json(text, "messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a JSON list of at least one object with role and content")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError(f"message {number} must be an object with role and content and nothing else")
        if message["role"] not in ROLES:
            raise ValueError(f"message {number} has the role {message['role']!r}; expected one of {', '.join(ROLES)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise ValueError(f"message {number} has no text as content")
        if not _is_unicode(message["content"]):
            raise ValueError(f"message {number} has half of a surrogate pair in its content")
    return messages


def _parse_sampling_parameters(text: str) -> int | None:
    if not text.strip():
        return None
    parameters = _parse_json(text, "sampling_parameters")
    if not isinstance(parameters, dict):
        raise ValueError('sampling_parameters must be a JSON object, for example {"max_tokens": 48}')
    for name in parameters:
        if name != "max_tokens":
            raise ValueError(
                f"sampling_parameters has the key {name!r}; only max_tokens is supported (answers are greedy)"
            )
    max_tokens = parameters.get("max_tokens")
    if max_tokens is None:
        return None
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens!r}; expected a whole number of at least 1")
    return max_tokens


def _is_unicode(text: str) -> bool:
    """JSON can spell lone surrogates, which neither tokenizers nor UTF-8 can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
