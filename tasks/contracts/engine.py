"""Loading the engine of a built servable into this process: the code and files that Triton loads."""

import importlib
import sys
import types
import uuid
from pathlib import Path
from typing import Any


def load_engine(version_directory: Path, threads: int = 0) -> Any:
    """Load the engine of a Triton version directory (".../1").

    Returns:
        The `Engine`; `generate(messages, max_new_tokens=None)` returns its `Answer`.
    """
    return import_served_module(version_directory, "engine").Engine(version_directory, threads)


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
