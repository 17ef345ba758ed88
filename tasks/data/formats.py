"""One record of a source → one canonical row, by the row format and the column mapping of the source's section.

What no row may hold is refused here, with the reason: half a surrogate pair (no file and no tokenizer takes it) and
NUL (C strings and databases end at it). Other control characters are text; cleaning repairs them.
"""

from collections.abc import Callable
from typing import Any

from tasks.contracts.source_config import FORMAT_FIELDS, SourceSection
from tasks.data.rows import Message, Row, UnusableRow, build_row
from tasks.data.shown import shown_name

BuildRow = Callable[[object], Row]
_Fields = dict[str, Any]
_Getter = Callable[[_Fields], Any]

MAX_SLICE_CHARS = 200

_ROLES = ("system", "user", "assistant")
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_EXPECTED = (
    "expected the fields messages, conversations, instruction and output, prompt and completion, "
    "or prompt, chosen and rejected"
)
_NAMED_FIELDS = 8


def row_builder(source: SourceSection, name: str) -> BuildRow:
    """Return the function that makes rows of the records of `source`.

    The function raises `UnusableRow` for a record that is no row.

    Args:
        source: row format, column mapping and slice.
        name: the rows' source.
    """
    with_columns = _column_mapping(source.columns)
    format_name = source.row_format if source.row_format != "auto" or not source.columns else _format_of(source.columns)
    read = None if format_name == "auto" else _READERS[format_name]
    slice_of = _path_getter(source.slice_column) if source.slice_column else None
    default_slice = source.slice

    def build(record: object) -> Row:
        if not isinstance(record, dict):
            raise UnusableRow(f"expected a JSON object, found {kind_of(record)}")
        fields = record if with_columns is None else with_columns(record)
        messages, rejected = (read or _reader_of(fields))(fields)
        slice_name = default_slice if slice_of is None else _slice_name(slice_of(record), default_slice)
        return build_row(messages, name, slice_name, None, rejected)

    return build


def value_at(record: Any, path: str) -> Any:
    """Return what stands in `record` at a path like `answers.0.text`; None where there is nothing."""
    return _path_getter(path)(record) if isinstance(record, dict) else None


def instruction_messages(instruction: object, input_text: object, output: object) -> list[Message]:
    """Turn an instruction, its optional input and its output into a user and an assistant message.

    Raises:
        UnusableRow: a value is no text, or the instruction is blank.
    """
    question, answer = checked_text(instruction, "instruction"), checked_text(output, "output")
    if not question.strip():
        raise UnusableRow("instruction is blank")
    if input_text is not None:
        shown = checked_text(input_text, "input")
        question = f"{question}\n\n{shown}" if shown else question
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def checked_messages(messages: object) -> list[Message]:
    """Return the messages of a conversation that ends in an answer, with nothing but role and content.

    Raises:
        UnusableRow: a role or a content is missing or of another type, or the roles are in no usable order.
    """
    if not isinstance(messages, list) or not messages:
        raise UnusableRow("messages must be a list with at least a user and an assistant message")
    checked = [_checked_message(message, number) for number, message in enumerate(messages, 1)]
    if checked[-1]["role"] != "assistant":
        raise UnusableRow(f"the last message must be the assistant's, found {checked[-1]['role']}")
    _check_prompt(checked[:-1])
    return checked


def checked_text(value: object, label: str) -> str:
    """Return `value` if it is text that a row may hold.

    Raises:
        UnusableRow: it is no text, or holds NUL or half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise UnusableRow(f"{label} must be text, found {kind_of(value)}")
    if "\0" in value:
        raise UnusableRow(f"{label} holds a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can spell it: "\ud83d"
            raise UnusableRow(f"{label} holds half of a surrogate pair") from None
    return value


def kind_of(value: object) -> str:
    """Name the type of a value of a record for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _checked_message(message: object, number: int) -> Message:
    if not isinstance(message, dict):
        raise UnusableRow(f"message {number} must be an object, found {kind_of(message)}")
    role = message.get("role")
    if role not in _ROLES:
        raise UnusableRow(f"message {number} has the role {_shown(role)}, expected one of {', '.join(_ROLES)}")
    content = message.get("content")
    if not isinstance(content, str):
        raise UnusableRow(f"the content of message {number} must be text, found {kind_of(content)}")
    checked_text(content, f"message {number}")
    if role == "user" and not content.strip():
        raise UnusableRow(f"message {number} (user) is blank")
    return {"role": role, "content": content}


def _check_prompt(prompt: list[Message]) -> None:
    roles = [message["role"] for message in prompt]
    if "user" not in roles:
        raise UnusableRow("there is no user message")
    if "system" in roles[1:]:
        raise UnusableRow("a system message may only come first")


_Read = tuple[list[Message], str | None]


def _read_messages(fields: _Fields) -> _Read:
    return checked_messages(_required(fields, "messages")), None


def _read_sharegpt(fields: _Fields) -> _Read:
    turns = _required(fields, "conversations")
    if not isinstance(turns, list):
        raise UnusableRow(f"conversations must be a list, found {kind_of(turns)}")
    return checked_messages([_sharegpt_message(turn, number) for number, turn in enumerate(turns, 1)]), None


def _sharegpt_message(turn: object, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise UnusableRow(f"message {number} must be an object, found {kind_of(turn)}")
    speaker = turn.get("from")
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        known = ", ".join(_SHAREGPT_ROLES)
        raise UnusableRow(f"message {number} is from {_shown(speaker)}, expected one of {known}")
    return {"role": role, "content": turn.get("value")}


def _read_instruction(fields: _Fields) -> _Read:
    instruction, output = _required(fields, "instruction"), _required(fields, "output")
    messages = instruction_messages(instruction, fields.get("input"), output)
    return _with_system(fields, messages), None


def _read_prompt_completion(fields: _Fields) -> _Read:
    prompt = checked_text(_required(fields, "prompt"), "prompt")
    completion = checked_text(_required(fields, "completion"), "completion")
    if not prompt.strip():
        raise UnusableRow("prompt is blank")
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return _with_system(fields, messages), None


def _with_system(fields: _Fields, messages: list[Message]) -> list[Message]:
    # A column called system is left alone unless the mapping names it: few data sets mean the same by it.
    if not isinstance(fields, _Mapped) or fields.get("system") is None:
        return messages
    system = checked_text(fields["system"], "system")
    return [{"role": "system", "content": system}, *messages] if system.strip() else messages


def _read_preference(fields: _Fields) -> _Read:
    chosen_prompt, chosen = _answer_with_prompt(_required(fields, "chosen"), "chosen")
    rejected_prompt, rejected = _answer_with_prompt(_required(fields, "rejected"), "rejected")
    if chosen_prompt and rejected_prompt and chosen_prompt != rejected_prompt:
        raise UnusableRow("chosen and rejected answer two different prompts")
    prompt = _agreed_prompt(fields.get("prompt"), chosen_prompt or rejected_prompt)
    _check_prompt(prompt)
    if chosen == rejected:
        raise UnusableRow("chosen and rejected are the same text")
    return [*prompt, {"role": "assistant", "content": chosen}], rejected


def _agreed_prompt(prompt: object, repeated: list[Message]) -> list[Message]:
    """Return the prompt of a pair whose answers may repeat it (as whole conversations do) or stand alone."""
    if prompt is None:
        if not repeated:
            raise UnusableRow("the field prompt is missing")
        return repeated
    if isinstance(prompt, str):
        if not checked_text(prompt, "prompt").strip():
            raise UnusableRow("prompt is blank")
        own = [{"role": "user", "content": prompt}]
        agrees = not repeated or repeated[-1] == own[-1]
        own = repeated or own
    elif isinstance(prompt, list) and prompt:
        own = [_checked_message(message, number) for number, message in enumerate(prompt, 1)]
        agrees = not repeated or repeated == own
    else:
        raise UnusableRow(f"prompt must be text or a list of messages, found {kind_of(prompt)}")
    if not agrees:
        raise UnusableRow("prompt and the conversation of chosen or rejected differ")
    return own


def _answer_with_prompt(value: object, label: str) -> tuple[list[Message], str]:
    if isinstance(value, str):
        return [], checked_text(value, label)
    if not isinstance(value, list) or not value:
        raise UnusableRow(f"{label} must be text or a list of messages, found {kind_of(value)}")
    messages = [_checked_message(message, number) for number, message in enumerate(value, 1)]
    if messages[-1]["role"] != "assistant":
        raise UnusableRow(f"the last message of {label} must be the assistant's, found {messages[-1]['role']}")
    return messages[:-1], messages[-1]["content"]


_READERS: dict[str, Callable[[_Fields], _Read]] = {
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "preference": _read_preference,
    "instruction": _read_instruction,
    "prompt_completion": _read_prompt_completion,
}


def _reader_of(fields: _Fields) -> Callable[[_Fields], _Read]:
    """Choose the format by the fields that have a value; tables often have columns that are empty in a row."""
    get = fields.get
    if get("instruction") is not None and get("output") is not None and get("messages") is None:
        return _read_instruction
    if get("messages") is not None:
        return _read_messages
    if get("conversations") is not None:
        return _read_sharegpt
    if get("chosen") is not None and get("rejected") is not None:
        return _read_preference
    if get("prompt") is not None and get("completion") is not None:
        return _read_prompt_completion
    names = [_shown(name, "name") for name in list(fields)[:_NAMED_FIELDS]]
    more = ", …" if len(fields) > _NAMED_FIELDS else ""
    raise UnusableRow(f"{_EXPECTED}; found {', '.join(names) or 'none'}{more}")


def _format_of(columns: dict[str, str]) -> str:
    """Return the format that the mapped fields belong to; of a lone `prompt` or `system`, the simplest."""
    for name in ("instruction", "prompt_completion", "preference", "messages", "sharegpt"):
        if set(columns) <= set(FORMAT_FIELDS[name]):
            return name
    raise AssertionError("the section checks that its columns are fields of one format")


def _required(fields: _Fields, name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise UnusableRow(f"the field {name} is missing")
    return value


class _Mapped(dict[str, Any]):
    """The fields of a record under the names of its format."""


def _column_mapping(columns: dict[str, str]) -> Callable[[_Fields], _Fields] | None:
    if not columns:
        return None
    getters = [(field, _joined_getter(paths)) for field, paths in columns.items()]

    def fields_of(record: _Fields) -> _Fields:
        fields = _Mapped(record)
        if "system" not in columns:
            fields.pop("system", None)
        for field, get in getters:
            fields[field] = get(record)
        return fields

    return fields_of


def _joined_getter(paths: str) -> _Getter:
    parts = [path.strip() for path in paths.split(" + ")]
    if len(parts) == 1:
        return _path_getter(parts[0])
    getters = [(part, _path_getter(part)) for part in parts]

    def joined(record: _Fields) -> str | None:
        texts = [(part, get(record)) for part, get in getters]
        present = [checked_text(text, part) for part, text in texts if text is not None]
        return "\n".join(text for text in present if text.strip()) or None

    return joined


def _path_getter(path: str) -> _Getter:
    """Read a field by its name, or by a path through objects and lists; a field of the whole name goes first."""
    parts = path.split(".")
    if len(parts) == 1:
        return lambda record: record.get(path)

    def get(record: _Fields) -> Any:
        if path in record:
            return record[path]
        value: Any = record
        for part in parts:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and len(part) < 7 and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
        return value

    return get


def _slice_name(value: object, default: str) -> str:
    if value is None or value == "":
        return default
    name = checked_text(value if isinstance(value, str) else _spelled(value), "slice_column").strip()
    if len(name) > MAX_SLICE_CHARS:
        raise UnusableRow(f"the slice has {len(name)} characters, expected a name of at most {MAX_SLICE_CHARS}")
    return name or default


def _spelled(value: object) -> str:
    if isinstance(value, dict | list | bytes):
        raise UnusableRow(f"slice_column must be text or a number, found {kind_of(value)}")
    return str(value)


def _shown(value: object, what: str = "text") -> str:
    return shown_name(value, what) if isinstance(value, str) else kind_of(value)
