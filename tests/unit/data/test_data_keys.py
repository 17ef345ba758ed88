"""What the keys of row sets and data sets are made of: whatever may change a row makes another entry."""

import importlib.metadata
import shutil
import sqlite3
import sys
from contextlib import nullcontext

import pytest

from tasks.contracts import store as contracts_store
from tasks.contracts.config import DataSection, chosen_settings, load_config
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.source_config import FilesSource, SqlSource
from tasks.contracts.store import LookupOnlyStore, NotInStore
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest, row_files


@pytest.fixture
def rows(write_lines, place):
    """Read twenty rows."""
    source = write_lines(*[{"instruction": f"What is {n} and {n}?", "output": f"It is {n + n}."} for n in range(20)])
    return ingest(DataSection(sources=(source,)), place, (source,))


@pytest.fixture
def is_found(rows, place):
    """Tell whether the data set of the twenty rows is there already, or would have to be made."""

    def found(**settings):
        try:
            build_dataset(rows, None, DataSection(**settings), Place(place.home, LookupOnlyStore(place.store.root)))
        except NotInStore:
            return False
        return True

    return found


def of_version(monkeypatch, library, version):
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == library else installed(name))


@pytest.mark.parametrize("library", ["rensa", "tokenizers", "google-re2", "ftfy", "regex"])
def test_another_version_of_a_library_is_another_data_set(is_found, rows, place, monkeypatch, library):
    build_dataset(rows, None, DataSection(), place)
    assert is_found()
    of_version(monkeypatch, library, "99.0")
    assert not is_found()


def test_a_library_that_rows_do_not_go_through_changes_no_key(is_found, rows, place, monkeypatch):
    build_dataset(rows, None, DataSection(), place)
    of_version(monkeypatch, "matplotlib", "99.0")
    of_version(monkeypatch, "spacy", "99.0")
    assert is_found()


@pytest.fixture
def source_copy(tmp_path, monkeypatch):
    """Let the code's digest be that of a copy, which may be changed."""
    for stage in ("data", "contracts", "training"):
        shutil.copytree(PROJECT_ROOT / "tasks" / stage, tmp_path / "copy" / "tasks" / stage)
    monkeypatch.setattr(contracts_store, "PROJECT_ROOT", tmp_path / "copy")
    contracts_store.code_digest.cache_clear()
    yield tmp_path / "copy"
    contracts_store.code_digest.cache_clear()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("tasks/data/cleaning/text.py", False),
        ("tasks/data/augment/grammar.py", False),
        ("tasks/contracts/twins.py", False),
        ("tasks/training/base_model.py", True),
    ],
)
def test_other_code_of_the_stage_is_another_row_set_and_another_data_set(
    source_copy, place, write_lines, changed, found
):
    source = write_lines(*[{"instruction": f"What is {n}?", "output": f"{n}"} for n in range(9)])
    data = DataSection(sources=(source,))
    rows = ingest(data, place, (source,))
    build_dataset(rows, None, data, place)
    with (source_copy / changed).open("a") as file:
        file.write("\n# another version\n")
    contracts_store.code_digest.cache_clear()
    there = Place(place.home, LookupOnlyStore(place.store.root))
    for ask in (lambda: ingest(data, there, (source,)), lambda: build_dataset(rows, None, data, there)):
        with nullcontext() if found else pytest.raises(NotInStore):
            ask()


def sources_of(rows):
    return {row["source"] for path in row_files(rows) for row in read_jsonl(path)}


def test_two_queries_with_the_same_records_are_two_row_sets(place, tmp_path, monkeypatch):
    """The rows name the query they come from."""
    with sqlite3.connect(tmp_path / "tickets.db") as database:
        database.execute("CREATE TABLE tickets (instruction TEXT, output TEXT)")
        database.executemany("INSERT INTO tickets VALUES (?, ?)", [(f"What is {n}?", f"{n}") for n in range(4)])
    monkeypatch.setenv("TICKETS_URL", f"sqlite:///{tmp_path / 'tickets.db'}")
    sets = []
    for query in ("SELECT instruction, output FROM tickets", "SELECT output, instruction FROM tickets"):
        source = SqlSource(url_variable="TICKETS_URL", query=query)
        sets.append(ingest(DataSection(sources=(source,)), place, (source,)))
        assert ingest(DataSection(sources=(source,)), place, (source,)) == sets[-1]
    one, other = sets
    assert one.path != other.path
    assert len(sources_of(one) | sources_of(other)) == 2


def test_a_file_in_another_folder_is_the_same_row_set(place, tmp_path, rows):
    """No folder is in a row."""
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "rows.jsonl", tmp_path / "elsewhere" / "rows.jsonl")
    moved = FilesSource(path=str(tmp_path / "elsewhere" / "rows.jsonl"))
    assert ingest(DataSection(sources=(moved,)), place, (moved,)).path == rows.path


@pytest.fixture
def model(tmp_path):
    """Write what stands for a spaCy model: to the key it is files."""
    folder = tmp_path / "models" / "en"
    (folder / "ner").mkdir(parents=True)
    (folder / "meta.json").write_text('{"lang": "en", "version": "1.0.0"}')
    (folder / "ner" / "model").write_bytes(b"weights")
    return folder


class KeyOnly(LookupOnlyStore):
    """A store that is asked for one entry and remembers its key."""

    asked = ""

    def produce(self, kind, inputs, write):
        self.asked = self.key(kind, inputs)
        return super().produce(kind, inputs, write)


@pytest.fixture
def key_with(rows, place):
    """Return the key of the data set whose named entities this model finds."""

    def key(model):
        step = {"step": "personal", "kinds": ["named_entity"], "entity_models": {"en": str(model)}}
        store = KeyOnly(place.store.root)
        with pytest.raises(NotInStore):
            build_dataset(rows, None, DataSection(cleaning=[step]), Place(place.home, store))
        return store.asked

    return key


@pytest.mark.parametrize("changed", ["meta.json", "ner/model"])
def test_another_model_of_named_entities_is_another_data_set(key_with, model, changed):
    before = key_with(model)
    assert key_with(model) == before
    (model / changed).write_bytes(b"other")
    assert key_with(model) != before


@pytest.mark.parametrize("library", ["spacy", "presidio-analyzer"])
def test_the_libraries_of_named_entities_are_in_the_key_where_they_are_used(key_with, model, monkeypatch, library):
    before = key_with(model)
    of_version(monkeypatch, library, "99.0")
    assert key_with(model) != before


def test_an_installed_model_is_in_the_key_by_its_files(key_with, model, tmp_path, monkeypatch):
    installed = model.rename(tmp_path / "models" / "en_core_test")
    (installed / "__init__.py").touch()
    monkeypatch.syspath_prepend(installed.parent)
    before = key_with("en_core_test")
    (installed / "__pycache__").mkdir()
    (installed / "__pycache__" / "x.pyc").write_bytes(b"byte code")
    assert key_with("en_core_test") == before
    (installed / "meta.json").write_text('{"version": "2.0.0"}')
    assert key_with("en_core_test") != before
    assert "en_core_test" not in sys.modules, "a key needs no model in memory"


def test_a_model_that_there_is_not_is_named_before_anything_is_made(key_with, model):
    with pytest.raises(EnvironmentProblem, match=r"entity_models\.en of the step personal is .*nothing"):
        key_with(model / "nothing")


def test_models_of_entities_count_from_the_file_they_stand_in(tmp_path, monkeypatch):
    """A name without a slash is an installed package and stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "mine.yaml"
    file.write_text(
        "data:\n  cleaning:\n    - step: personal\n      kinds: [named_entity]\n"
        "      entity_models: {en: models/en, zh: zh_core_web_sm}\n"
    )
    config = load_config(file=file)
    [step] = config.data.cleaning
    assert step.entity_models == {"en": str(tmp_path / "conf" / "models" / "en"), "zh": "zh_core_web_sm"}
    [sent] = chosen_settings(config)["data"]["cleaning"]
    assert sent["entity_models"] == step.entity_models
