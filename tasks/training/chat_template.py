"""The chat template of a base model: its own, or one that is given to it as a file."""

from pathlib import Path
from typing import Any

from tasks.contracts.config import BaseModelSection
from tasks.contracts.engine import load_chat_template
from tasks.contracts.errors import BaseModelError

_MOST_BYTES = 1_000_000
_QUESTION = "How many sides has a triangle?"
_ASKED = [{"role": "user", "content": _QUESTION}]


def read_chat_template(path: str) -> str:
    """Return the template that base_model.chat_template names; empty if it names none.

    Raises:
        BaseModelError: the file cannot be read, is no text, is empty or is larger than any template.
    """
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        template = content.decode("utf-8")
    except OSError as error:
        raise BaseModelError(
            f"base_model.chat_template is {path!r}, which cannot be read ({error.strerror}); expected a .jinja file"
        ) from error
    except UnicodeDecodeError as error:
        raise BaseModelError(f"base_model.chat_template is {path!r}, which is not UTF-8 text") from error
    if len(content) > _MOST_BYTES or not template.strip():
        found = "is empty" if not template.strip() else f"has more than {_MOST_BYTES} bytes"
        raise BaseModelError(f"base_model.chat_template is {path!r}, which {found}; expected a chat template")
    return template


def keep_chat_template(template: str, model: Path) -> None:
    """Put a template beside a model, where transformers takes it before any that the tokenizer brought."""
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")


def check_chat_template(tokenizer: Any, base_model: BaseModelSection) -> None:
    """Refuse a template that is missing, does not parse, or does not spell a question.

    It is compiled by the code and in the sandbox that will serve it.

    Raises:
        BaseModelError: names the file that was given, or else the model.
    """
    import jinja2

    template = tokenizer.chat_template
    whose = _whose(base_model)
    if not isinstance(template, str):
        found = "several chat templates; expected one" if template else "no chat template"
        raise BaseModelError(
            f"base_model.source is {base_model.source!r}, whose tokenizer has {found}; one can be given by "
            "base_model.chat_template"
        )
    try:
        prompt = load_chat_template(template, tokenizer.bos_token, tokenizer.eos_token).render(_ASKED)
    except jinja2.TemplateSyntaxError as error:
        raise BaseModelError(f"{whose} does not parse: line {error.lineno}: {error.message}") from error
    except Exception as error:  # a template is a program: it may fail of anything
        said = " ".join(str(error).split())[:300]
        raise BaseModelError(f"{whose} cannot spell a question: {said}") from error
    if _QUESTION not in prompt:
        raise BaseModelError(f"{whose} leaves out what the user asked; expected the content of every message")


def check_system_prompt(spelling: dict[str, str], system_prompt: str, base_model: BaseModelSection) -> None:
    """Refuse a template that cannot spell the configured system prompt, or leaves it out.

    Args:
        spelling: `source`, `bos_token` and `eos_token` of the template.
        system_prompt: serving.system_prompt; empty if there is none.
        base_model: for the message.

    Raises:
        BaseModelError: names the file that was given, or else the model.
    """
    if not system_prompt:
        return
    wanted = "expected a template with a system role, or an empty serving.system_prompt"
    try:
        prompt = load_chat_template(**spelling).render([{"role": "system", "content": system_prompt}, *_ASKED])
    except Exception as error:  # a template is a program: it may fail of anything
        said = " ".join(str(error).split())[:300]
        raise BaseModelError(f"{_whose(base_model)} cannot spell serving.system_prompt: {said}; {wanted}") from error
    if system_prompt.strip() not in prompt:
        raise BaseModelError(f"{_whose(base_model)} leaves out serving.system_prompt; {wanted}")


def _whose(base_model: BaseModelSection) -> str:
    if base_model.chat_template:
        return f"base_model.chat_template is {base_model.chat_template!r}, which"
    return f"base_model.source is {base_model.source!r}, whose chat template"
