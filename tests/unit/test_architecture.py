"""The house keeps its doors: imports go flows → tasks/<stage> → tasks/contracts, and the serving code stands alone."""

import ast
import subprocess
import sys

import pytest
from portions import LONGEST_FIRST, place_in_order, portion_of

from tasks.contracts.home import PROJECT_ROOT

STAGES = {"data", "training", "evaluation", "registry", "serving", "monitoring"}
SOURCES = [path for folder in ("flows", "tasks") for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_imports_go_one_way(path):
    place = path.relative_to(PROJECT_ROOT).parts
    own = place[1] if place[0] == "tasks" and len(place) > 2 else None
    for module in imported_modules(path):
        parts = module.split(".")
        if place[0] == "flows":
            continue
        assert parts[0] != "flows", f"{path} imports {module}"
        if parts[0] == "tasks" and len(parts) > 1:
            allowed = {"contracts"} if own in (None, "contracts") else {"contracts", own}
            assert parts[1] in allowed, f"{path} imports {module}, of another stage"


def test_there_are_sources_of_every_stage_to_check():
    assert {path.relative_to(PROJECT_ROOT).parts[1] for path in SOURCES if path.parent.parent.name == "tasks"} >= STAGES


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "triton_models").rglob("*.py")), ids=lambda path: path.name)
def test_serving_code_imports_nothing_of_the_project(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"tasks", "flows"}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] not in {"tasks", "flows"}


def test_the_fast_path_and_help_import_nothing_heavy():
    """A run that is done already must be recognised without paying for torch, transformers, MLflow or Prefect."""
    heavy = "[m for m in ('torch', 'transformers', 'mlflow', 'prefect') if m in sys.modules]"
    code = f"import sys, flows.cli, flows.finished; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("portion", LONGEST_FIRST)
def test_what_is_run_first_is_a_file_or_a_folder_of_tests(portion):
    """A name that is out of date would leave a long file for the end, where nothing runs beside it."""
    path = PROJECT_ROOT / "tests" / portion
    some = path if path.is_file() else next(path.glob("test_*.py"))
    assert portion_of(f"{some.relative_to(PROJECT_ROOT)}::test_some") == portion


def test_the_longest_portions_come_first_and_unit_tests_after_real_servers():
    portions = ["unit/serving", "unit/flows", "integration/test_new.py", "integration/test_the_loop.py"]
    assert sorted(portions, key=place_in_order) == [
        "integration/test_the_loop.py",
        "integration/test_new.py",
        "unit/flows",
        "unit/serving",
    ]
