"""A module that a library finds dispensable is not found while it is hidden, and is there again afterwards."""

import importlib
import sys
from importlib.util import find_spec

import pytest

from tasks.contracts.hidden_modules import hidden_modules


@pytest.fixture
def dispensable(tmp_path, monkeypatch):
    """The name of a module that nobody has imported."""
    (tmp_path / "dispensable.py").write_text("HERE = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "dispensable"
    sys.modules.pop("dispensable", None)


def test_a_hidden_module_is_neither_found_nor_imported(dispensable):
    with hidden_modules(dispensable):
        assert find_spec(dispensable) is None
        with pytest.raises(ImportError):
            importlib.import_module(dispensable)


def test_after_the_block_it_can_be_imported_even_if_the_block_failed(dispensable):
    with pytest.raises(KeyError), hidden_modules(dispensable):
        raise KeyError
    assert importlib.import_module(dispensable).HERE


def test_a_module_that_is_imported_already_stays(dispensable):
    module = importlib.import_module(dispensable)
    with hidden_modules(dispensable):
        assert importlib.import_module(dispensable) is module
    assert sys.modules[dispensable] is module
