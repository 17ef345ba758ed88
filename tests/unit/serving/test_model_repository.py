import shutil

import pytest

from tasks.contracts.errors import ConfigError, ServingError, StoreError
from tasks.contracts.store import MANIFEST, damage_of, read_manifest
from tasks.serving.model_config import engine_config
from tasks.serving.repository import copy_engine, publish, publish_router, remove


@pytest.fixture
def servable(tmp_path):
    directory = tmp_path / "servable"
    copy_engine("onnx", directory / "1")
    (directory / "1" / "genai").mkdir()
    (directory / "1" / "genai" / "model.onnx").write_bytes(b"weights")
    (directory / "config.pbtxt").write_text(engine_config())
    return directory


@pytest.fixture
def publish_to(tmp_path):
    """Publish into a repository under tmp_path."""

    def publish_servable(servable, name="assistant-v1"):
        return publish(servable, tmp_path / "repository", tmp_path / "incoming", name)

    return publish_servable


def visible(tmp_path):
    return sorted(path.name for path in (tmp_path / "repository").iterdir())


@pytest.mark.parametrize("engine", ["onnx", "transformers"])
def test_the_code_of_an_engine_is_complete_and_imports_nothing_of_the_project(tmp_path, engine):
    copy_engine(engine, tmp_path / "1")

    sources = {path.name: path.read_text() for path in (tmp_path / "1").iterdir()}
    own = {"onnx": {"batch.py", "decoder.py"}, "transformers": set()}[engine]
    assert set(sources) == {"engine.py", "model.py", "prompt.py", "request.py", "tensors.py"} | own
    for source in sources.values():
        assert not any(line.startswith(("import tasks", "from tasks", "from flows")) for line in source.splitlines())
        for line in source.splitlines():
            if line.startswith("from ."):
                assert f"{line.split()[1].removeprefix('.')}.py" in sources


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(ValueError, match="engine is 'vllm'; expected one of onnx, transformers"):
        copy_engine("vllm", tmp_path / "1")


def test_a_published_model_is_a_complete_copy(tmp_path, servable, publish_to):
    target = publish_to(servable)

    assert target == tmp_path / "repository" / "assistant-v1"
    assert damage_of(target) == ""
    assert set(read_manifest(target)["files"]) == {
        str(path.relative_to(servable)) for path in servable.rglob("*") if path.is_file()
    }
    (servable / "1" / "genai" / "model.onnx").write_bytes(b"changed")
    assert damage_of(target) == ""


@pytest.mark.parametrize("copied_files", [0, 3])
def test_a_copy_that_is_cut_off_leaves_nothing_in_the_repository(
    tmp_path, servable, publish_to, monkeypatch, copied_files
):
    copy, copied = shutil.copyfile, []

    def cut_off(source, target):
        if len(copied) == copied_files:
            raise KeyboardInterrupt
        copied.append(source)
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", cut_off)
    with pytest.raises(KeyboardInterrupt):
        publish_to(servable)

    assert visible(tmp_path) == []
    monkeypatch.undo()
    assert damage_of(publish_to(servable)) == ""


def test_what_a_crash_left_of_a_copy_goes_with_the_next_publication(tmp_path, servable, publish_to, monkeypatch):
    """A killed process cannot clean up; here the cleaning is taken away instead."""
    with monkeypatch.context() as crash:
        crash.setattr(shutil, "copyfile", lambda source, target: (_ for _ in ()).throw(KeyboardInterrupt))
        crash.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)
        with pytest.raises(KeyboardInterrupt):
            publish_to(servable)
    assert [path.name for path in (tmp_path / "incoming").iterdir() if path.is_dir()]

    publish_to(servable)

    assert [path.name for path in (tmp_path / "incoming").iterdir() if path.is_dir()] == []


def test_no_space_is_one_sentence_and_leaves_the_repository_as_it_was(tmp_path, servable, publish_to, monkeypatch):
    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(StoreError, match=r"assistant-v1 cannot be published.*No space left.*LLM_RETRAIN_HOME"):
        publish_to(servable)

    assert visible(tmp_path) == []


def test_the_same_model_published_again_is_left_alone(tmp_path, servable, publish_to):
    first = publish_to(servable).stat().st_ino

    assert publish_to(servable).stat().st_ino == first
    assert not list((tmp_path / "incoming").glob(".replaced-*"))


def test_byte_code_and_the_stores_manifest_are_not_published(servable, publish_to):
    (servable / "1" / "__pycache__").mkdir()
    (servable / "1" / "__pycache__" / "model.pyc").write_bytes(b"")
    (servable / MANIFEST).write_text("{}")

    assert not any("pycache" in name or name == MANIFEST for name in read_manifest(publish_to(servable))["files"])


@pytest.mark.parametrize("change", ["another model", "damage", "no manifest"])
def test_another_or_damaged_model_of_that_name_is_set_aside_not_deleted(tmp_path, servable, publish_to, change):
    target = publish_to(servable)
    weights = target / "1" / "genai" / "model.onnx"
    if change == "another model":
        (servable / "1" / "genai" / "model.onnx").write_bytes(b"other weights")
    elif change == "damage":
        weights.write_bytes(b"scratch")
    else:
        (target / MANIFEST).unlink()
    before = weights.read_bytes()

    publish_to(servable)

    assert damage_of(target) == ""
    assert weights.read_bytes() == (servable / "1" / "genai" / "model.onnx").read_bytes()
    aside = tmp_path / "incoming" / ".replaced-assistant-v1"
    assert (aside / "1" / "genai" / "model.onnx").read_bytes() == before
    assert visible(tmp_path) == ["assistant-v1"]


def test_only_the_last_model_that_was_set_aside_is_kept(tmp_path, servable, publish_to):
    for weights in (b"first", b"second", b"third"):
        (servable / "1" / "genai" / "model.onnx").write_bytes(weights)
        publish_to(servable)

    (aside,) = (tmp_path / "incoming").glob(".replaced-*")
    assert (aside / "1" / "genai" / "model.onnx").read_bytes() == b"second"


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".", "..", "/etc", "-flag", "A", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, servable, publish_to, name):
    with pytest.raises(ConfigError, match="expected 1 to 63 lowercase letters"):
        publish_to(servable, name)
    with pytest.raises(ConfigError):
        remove(tmp_path / "repository", tmp_path / "incoming", name)

    assert not (tmp_path / "repository").exists()


def test_a_directory_that_is_no_triton_model_is_refused(tmp_path, publish_to):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ServingError, match=r"cannot be published as assistant-v1: it has no config\.pbtxt"):
        publish_to(tmp_path / "empty")


def test_a_removed_model_is_gone_and_removing_it_again_changes_nothing(tmp_path, servable, publish_to):
    publish_to(servable, "assistant-v1")
    publish_to(servable, "assistant-v2")

    for _ in range(2):
        remove(tmp_path / "repository", tmp_path / "incoming", "assistant-v1")
        assert visible(tmp_path) == ["assistant-v2"]
    assert [path for path in (tmp_path / "incoming").iterdir() if path.is_dir()] == []


def test_a_router_is_published_with_its_code_and_paths(home):
    target = publish_router(home, "assistant")

    assert target == home.triton_repository / "assistant"
    assert damage_of(target) == ""
    assert str(home.routing_file("assistant")) in (target / "config.pbtxt").read_text()
    assert sorted(path.name for path in (target / "1").iterdir()) == [
        "model.py",
        "request.py",
        "request_log.py",
        "routing_table.py",
        "tensors.py",
    ]
    assert home.request_log("assistant").parent.is_dir()
