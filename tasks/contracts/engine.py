"""Loading code that is served into this process: a built servable's engine, and the chat template's renderer."""

import importlib
import sys
import types
import uuid
from pathlib import Path
from typing import Any

from tasks.contracts.home import PROJECT_ROOT

TEMPLATE_DATE = "2025-01-01"
"""The day that chat templates see (`strftime_now`), in training, evaluation and serving.

With the real date, the prompts that a version was trained, judged and checked with would be other prompts tomorrow,
and a rollback to it would fail its golden prompts. It goes into the keys of adapters and servables.
"""
GOLDEN_REQUEST_ID = "llm-retrain-golden-prompt"
"""The request id of what a roll-out asks through the router: it stands in the request log, and no user asked it."""


def load_engine(version_directory: Path, threads: int = 0) -> Any:
    """Load the engine of a Triton version directory (".../1").

    Returns:
        The `Engine`; `generate(messages, max_new_tokens=None)` returns its `Answer`.
    """
    return import_served_module(version_directory, "engine").Engine(version_directory, threads)


def load_chat_template(source: str, bos_token: str | None, eos_token: str | None) -> Any:
    """Compile a chat template with the code that will serve it, so that training sees what the server sees.

    Returns:
        The `ChatTemplate`; `render(messages, add_generation_prompt=True)` returns text.
    """
    prompt = import_served_module(PROJECT_ROOT / "triton_models", "prompt")
    return prompt.ChatTemplate(source, TEMPLATE_DATE, bos_token or "", eos_token or "")


def import_served_module(version_directory: Path, module: str) -> Any:
    """Import a module of a version directory as part of a package of its own, as Triton does.

    So several servables, each with its own code, can be loaded side by side. The directory stays as it is: no byte
    code is written into it.
    """
    package = types.ModuleType(f"servable_{uuid.uuid4().hex}")
    package.__path__ = [str(version_directory)]
    sys.modules[package.__name__] = package
    writes_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(f"{package.__name__}.{module}")
    finally:
        sys.dont_write_bytecode = writes_no_bytecode
