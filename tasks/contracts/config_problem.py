"""What is wrong with a configuration, in the words of the YAML that a person wrote."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

_QUOTED = re.compile("'([^']*)'")
_WITH_USER = re.compile("://.*@", re.DOTALL)


def explain(problem: Any, known_keys: Sequence[str]) -> str:
    """Return one clause that names key and value, and what was expected.

    Args:
        problem: one of the errors of a pydantic ValidationError.
        known_keys: all keys of the configuration, for the one that was meant.
    """
    parts, value, context = [str(part) for part in problem["loc"]], problem["input"], problem.get("ctx", {})
    key = ".".join(parts)
    message = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            return f"{key} is not a config key{_meant(parts[-1], known_keys)}"
        case "tuple_type":
            message = "expected a list"
        case "model_attributes_type":
            message = "expected settings, key: value"
        case "union_tag_not_found":
            message = f"expected the key {context['discriminator'].strip(chr(39))} in it"
        case "union_tag_invalid":
            tags, discriminator = _QUOTED.findall(context["expected_tags"]), context["discriminator"].strip("'")
            given = context["tag"]
            return f"{key}.{discriminator} is {given!r}; expected one of {', '.join(tags)}{_meant(given, tags)}"
        case "literal_error":
            message += _meant(value, _QUOTED.findall(context["expected"]))
        case "value_error" if isinstance(value, dict):
            return message  # about several keys, which it names itself
        case "value_error" if "key itself" in message or "expected no key" in message:
            return f"{key} is not shown: {message}"
    if isinstance(value, str) and (_WITH_USER.search(value) or (parts[-1:] == ["url"] and set(value) & set("@?"))):
        return f"{key} is not shown: {message}"
    return f"{key} is {value!r}: {message}"


def _meant(given: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(given), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
