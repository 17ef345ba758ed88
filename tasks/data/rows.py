"""The canonical row: one conversation with its origin, whatever the source looked like.

    {"id", "messages": [{"role", "content"}, ...], "source", "slice", "weight", "meta"}

The last message is the assistant's (the answer); the messages before it are the prompt. The id is the digest of the
messages, so the same conversation has the same id wherever it comes from.
"""

from dataclasses import dataclass
from typing import Any

from tasks.contracts.jsonl import digest_of

Row = dict[str, Any]
Message = dict[str, str]

_ROLES = ("system", "user", "assistant")
NOT_A_ROW = "not a usable conversation"


class UnusableRow(Exception):
    """A record that is no canonical row; its text says why. Never leaves the data stage."""


@dataclass(frozen=True)
class Rejection:
    """A piece of a source that did not become a row.

    Attributes:
        reason: the name it is counted under.
        detail: what exactly is wrong.
        source: the source's name.
        line: line number in the file, from 1.
        excerpt: the beginning of the line.
    """

    reason: str
    detail: str
    source: str
    line: int
    excerpt: str


def build_row(messages: list[Message], source: str, slice_name: str, meta: dict[str, Any] | None = None) -> Row:
    """Return the canonical row of checked messages."""
    return {
        "id": digest_of(messages),
        "messages": messages,
        "source": source,
        "slice": slice_name,
        "weight": 1.0,
        "meta": meta or {},
    }


def messages_of(record: object) -> list[Message]:
    """Read the conversation from a record with chat `messages` or with instruction, input (optional) and output.

    Other keys are ignored. An empty answer passes: cleaning rejects and counts it.

    Raises:
        UnusableRow: a key is missing, has another type, or the messages are no conversation that ends in an answer.
    """
    if not isinstance(record, dict):
        raise UnusableRow(f"expected a JSON object, found {_kind(record)}")
    if "messages" in record:
        return _checked(record["messages"])
    if "instruction" not in record or "output" not in record:
        raise UnusableRow("expected the key messages, or the keys instruction and output")
    return instruction_messages(record["instruction"], record.get("input"), record["output"])


def instruction_messages(instruction: object, input_text: object, output: object) -> list[Message]:
    """Turn an instruction, its optional input and its output into a user and an assistant message.

    Raises:
        UnusableRow: a value is no text, or the instruction is blank.
    """
    for key, value in (("instruction", instruction), ("output", output)):
        if not isinstance(value, str):
            raise UnusableRow(f"{key} must be text, found {_kind(value)}")
    if input_text is not None and not isinstance(input_text, str):
        raise UnusableRow(f"input must be text, found {_kind(input_text)}")
    if not str(instruction).strip():
        raise UnusableRow("instruction is blank")
    content = f"{instruction}\n\n{input_text}" if input_text else instruction
    return _checked([{"role": "user", "content": content}, {"role": "assistant", "content": output}])


def prompt_of(row: Row) -> list[Message]:
    """Return the messages before the answer."""
    prompt: list[Message] = row["messages"][:-1]
    return prompt


def answer_of(row: Row) -> str:
    """Return the content of the last message."""
    answer: str = row["messages"][-1]["content"]
    return answer


def _checked(messages: object) -> list[Message]:
    """Return the messages with nothing but role and content."""
    if not isinstance(messages, list) or not messages:
        raise UnusableRow("messages must be a list with at least a user and an assistant message")
    checked = [_checked_message(message, number) for number, message in enumerate(messages, 1)]
    roles = [message["role"] for message in checked]
    if roles[-1] != "assistant":
        raise UnusableRow(f"the last message must be the assistant's, found {roles[-1]}")
    if "user" not in roles:
        raise UnusableRow("there is no user message")
    if "system" in roles[1:]:
        raise UnusableRow("a system message may only come first")
    return checked


def _checked_message(message: object, number: int) -> Message:
    if not isinstance(message, dict):
        raise UnusableRow(f"message {number} must be an object, found {_kind(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise UnusableRow(f"message {number} has the role {role!r}, expected one of {', '.join(_ROLES)}")
    if not isinstance(content, str):
        raise UnusableRow(f"the content of message {number} must be text, found {_kind(content)}")
    if role == "user" and not content.strip():
        raise UnusableRow(f"message {number} (user) is blank")
    try:
        content.encode()
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair ("\ud83d"), which no tokenizer and no UTF-8 file accepts.
        raise UnusableRow(f"message {number} holds half of a surrogate pair") from None
    return {"role": role, "content": content}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
