import json

import pytest
from pydantic import ValidationError

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import HuggingFaceSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets")


@pytest.fixture
def saved(tmp_path, datasets, rows):
    """Two splits on disk, as save_to_disk writes them."""
    splits = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_data_set_is_read_by_split(saved, read, answers):
    reading = read(HuggingFaceSource(source=f"dir:{saved}"))
    assert reading.answers == answers
    assert reading.rows[0]["source"] == "saved-train"
    assert read(HuggingFaceSource(source=f"dir:{saved}", split="test")).answers == answers[:1]


def test_a_saved_data_set_without_splits_and_with_nested_columns_is_read(tmp_path, datasets, read):
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    datasets.Dataset.from_list([{"chat": {"turns": turns}}]).save_to_disk(tmp_path / "one")
    source = HuggingFaceSource(source=f"dir:{tmp_path}/one", columns={"conversations": "chat.turns"})
    assert read(source).answers == ["Because."]


def test_an_unchanged_data_set_is_not_loaded_again_and_its_digest_is_the_same_elsewhere(
    saved, read, datasets, monkeypatch
):
    first = read(HuggingFaceSource(source=f"dir:{saved}"))
    monkeypatch.setattr(datasets, "load_from_disk", None)
    assert read(HuggingFaceSource(source=f"dir:{saved}")).opened.digest == first.opened.digest
    monkeypatch.undo()
    (saved.parent / "elsewhere").mkdir()
    moved = saved.rename(saved.parent / "elsewhere" / saved.name)
    assert read(HuggingFaceSource(source=f"dir:{moved}")).opened.digest == first.opened.digest
    renamed = moved.rename(moved.parent / "other")  # its rows name the folder
    assert read(HuggingFaceSource(source=f"dir:{renamed}")).opened.digest != first.opened.digest


@pytest.mark.parametrize(
    ("place", "split", "reason"),
    [
        ("none", "train", "is no saved data set; expected a folder that save_to_disk wrote"),
        ("saved", "dev", "has the split 'dev'; expected one of 'train', 'test'"),
    ],
)
def test_what_is_not_there_is_one_sentence(saved, read, place, split, reason):
    with pytest.raises(DataError, match=rf"^data\.sources .*{reason}"):
        read(HuggingFaceSource(source=f"dir:{saved.parent}/{place}", split=split))


def test_a_damaged_data_set_is_one_sentence(saved, read):
    for path in saved.rglob("*.arrow"):
        path.write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"^data\.sources names .* which cannot be read"):
        read(HuggingFaceSource(source=f"dir:{saved}"))


def test_the_hub_is_asked_for_one_commit_and_never_for_code(read, datasets, rows, answers, monkeypatch):
    asked = []

    def load(*names, **settings):
        asked.append((names, settings))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = HuggingFaceSource(source=f"hub:org/rows@{COMMIT}", subset="zh")
    reading = read(source)
    assert reading.answers == answers
    assert reading.rows[0]["source"] == "org-rows-train"
    assert asked == [(("org/rows", "zh"), {"split": "train", "revision": COMMIT})]
    read(source)
    assert len(asked) == 1, "a commit cannot change"


def test_a_hub_that_cannot_be_reached_is_one_sentence(read, datasets, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"^data\.sources names 'hub:org/rows@.* which cannot be read .*; expected a data"
    ):
        read(HuggingFaceSource(source=f"hub:org/rows@{COMMIT}"))


@pytest.mark.parametrize(
    "source", ["rows", "dir:", "hub:org/rows", "hub:org/rows@main", f"hub:../rows@{COMMIT[:-1]}", "x:y"]
)
def test_a_source_that_can_move_is_a_config_error(source):
    with pytest.raises(ValidationError, match="expected"):
        HuggingFaceSource(source=source)


def test_values_that_json_does_not_know_become_text(tmp_path, datasets, read):
    from datetime import datetime

    record = {"instruction": "x", "output": "y", "at": datetime(2026, 1, 2), "raw": b"\xff"}
    datasets.Dataset.from_list([record]).save_to_disk(tmp_path / "one")
    reading = read(HuggingFaceSource(source=f"dir:{tmp_path}/one"))
    (chunk,) = (tmp_path / "cache").rglob("chunk-*")
    assert reading.answers == ["y"]
    assert json.loads(chunk.read_text())["at"] == "2026-01-02T00:00:00"
