"""What goes into the keys of adapters, servables and predictions: a stale entry must never be found."""

import importlib.metadata
import shutil

import pytest

from tasks.contracts import store as store_module
from tasks.contracts.artifacts import BaseModelRef, DatasetRef, ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.store import NotInStore, Store
from tasks.contracts.training_config import TrainingSection
from tasks.evaluation.generation import generate_predictions
from tasks.serving.build import build_servable
from tasks.training.adapter import TrainingJob, train_adapter


class KeyOnlyStore(Store):
    """Remembers the key it was asked for, and makes nothing."""

    def produce(self, kind, inputs, write):
        self.asked = self.key(kind, inputs)
        raise NotInStore(kind)


@pytest.fixture
def key_of(tmp_path):
    """Return the key that a kind of entry has now."""
    (tmp_path / "train.jsonl").write_text("{}\n")
    base = BaseModelRef(tmp_path, "base", "dir:base")
    dataset = DatasetRef(tmp_path, "rows", rows_read=1, train_rows=1, eval_rows=0, rejected={}, eval_digest="none")
    log_path = tmp_path / "log"

    def ask(kind, engine="onnx"):
        store = KeyOnlyStore(tmp_path / "store")
        with pytest.raises(NotInStore):
            if kind == "adapter":
                train_adapter(TrainingJob(base, dataset, TrainingSection()), store, log_path)
            elif kind == "servable":
                build_servable(base, None, ServingSection(engine=engine), store, log_path)
            else:
                generate_predictions(ServableModel(tmp_path, "servable", engine), dataset, range(8), store, log_path)
        return store.asked

    return ask


@pytest.mark.parametrize(
    ("kind", "engine", "library"),
    [
        ("adapter", "onnx", "torch"),
        ("adapter", "onnx", "peft"),
        ("servable", "onnx", "transformers"),
        ("servable", "onnx", "onnxruntime-genai"),
        ("servable", "transformers", "torch"),
        ("predictions", "onnx", "onnxruntime"),
        ("predictions", "transformers", "transformers"),
    ],
)
def test_another_version_of_a_library_that_computes_the_entry_is_another_key(
    key_of, monkeypatch, kind, engine, library
):
    before = key_of(kind, engine)
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == library else installed(name))
    assert key_of(kind, engine) != before


def test_a_library_of_the_other_engine_does_not_matter(key_of, monkeypatch):
    before = key_of("servable", "transformers")
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.0" if name == "onnxruntime-genai" else installed(name)
    )
    assert key_of("servable", "transformers") == before


@pytest.fixture
def edit_source(tmp_path, monkeypatch):
    """Point the code digest at a copy of the sources, and add a line to one of them."""
    for folder in ("tasks", "triton_models"):
        shutil.copytree(PROJECT_ROOT / folder, tmp_path / "copy" / folder)
    monkeypatch.setattr(store_module, "PROJECT_ROOT", tmp_path / "copy")
    store_module.code_digest.cache_clear()

    def edit(relative):
        path = tmp_path / "copy" / relative
        path.write_text(path.read_text() + "# edited\n")
        store_module.code_digest.cache_clear()

    yield edit
    store_module.code_digest.cache_clear()


@pytest.mark.parametrize(
    ("kind", "source", "matters"),
    [
        ("adapter", "tasks/training/process.py", True),
        ("adapter", "tasks/training/loop/examples.py", True),
        ("adapter", "tasks/training/sweep/search.py", False),
        ("adapter", "triton_models/prompt.py", True),
        ("adapter", "tasks/training/steps.py", False),
        ("adapter", "tasks/training/base_model.py", False),
        ("servable", "tasks/serving/model_config.py", True),
        ("servable", "tasks/serving/repository.py", True),
        ("servable", "triton_models/prompt.py", True),
        ("servable", "tasks/serving/rollout.py", False),
    ],
)
def test_the_code_that_determines_an_entry_is_in_its_key_and_other_code_is_not(
    key_of, edit_source, kind, source, matters
):
    before = key_of(kind)
    edit_source(source)
    assert (key_of(kind) != before) is matters


@pytest.mark.parametrize(("kind", "module"), [("adapter", "training.adapter"), ("servable", "serving.build")])
def test_another_template_date_is_another_key(key_of, monkeypatch, kind, module):
    before = key_of(kind)
    monkeypatch.setattr(f"tasks.{module}.TEMPLATE_DATE", "1999-12-31")
    assert key_of(kind) != before
