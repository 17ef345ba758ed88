"""The tables of methods in the documents are the table that the code goes by, and every key is told of."""

import re

import pytest

from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection


def cells_of(document, first_cell):
    """Return the cells of the table whose first head is `first_cell`, a list a line, without head and rule."""
    lines = (PROJECT_ROOT / document).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_cell} |")) + 2
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_the_table_in_the_training_document_is_that_of_the_code():
    expected = [
        [
            f"`{name}`",
            method.title,
            ", ".join(method.parts),
            ", ".join(method.engines),
            f"{method.learning_rate:g}",
            method.source or "–",
        ]
        for name, method in METHODS.items()
    ]
    assert cells_of("docs/training.md", "`training.method`") == expected


def test_the_short_table_in_the_readme_says_which_engines_serve_which_method():
    told = {}
    for methods, *engines in cells_of("README.md", "training method"):
        for name in re.findall(r"`(\w+)`", methods):
            told[name] = tuple(
                engine for engine, cell in zip(("onnx", "transformers"), engines, strict=True) if cell == "yes"
            )
    assert told == {name: method.engines for name, method in METHODS.items()}


@pytest.mark.parametrize("key", sorted(set(TrainingSection.model_fields) - {"seed", "device", "batch_rows", "epochs"}))
def test_the_training_document_names_every_key(key):
    text = (PROJECT_ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{key}\b", text), key
