"""Real texts of two kinds: functions of the standard library, and of scikit-learn."""

import ast
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

_STDLIB_MODULES = (
    "argparse collections configparser csv dataclasses difflib email ftplib http imaplib ipaddress json logging "
    "mailbox pathlib pdb pickle plistlib random shutil smtplib socket statistics tarfile tempfile threading turtle "
    "urllib uuid wsgiref xmlrpc zipfile"
)


def _functions_under(path):
    """Map the code of each function, without its docstring and at most 600 characters, to its top-level module."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    found = {}
    for file in files:
        if "tests" in file.parts or "test" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
                node.body = node.body[1:]
                code = ast.unparse(node)
                if 60 <= len(code) <= 600:
                    found.setdefault(code, path.stem)
    return found


@pytest.fixture(scope="session")
def stdlib_functions():
    """Code of standard library functions → the module it is from."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for name in _STDLIB_MODULES.split():
        found = {**_functions_under(root / name if (root / name).is_dir() else root / f"{name}.py"), **found}
    return found


@pytest.fixture(scope="session")
def sklearn_functions():
    """Code of scikit-learn functions."""
    root = Path(find_spec("sklearn").submodule_search_locations[0])
    return [*_functions_under(root / "linear_model"), *_functions_under(root / "preprocessing")]
