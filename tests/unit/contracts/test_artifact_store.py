"""The store: complete or absent, found by key, distrustful of its own files."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.errors import StoreError
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.store import LookupOnlyStore, NotInStore, Store, damage_of


def write_numbers(directory):
    (directory / "numbers.txt").write_text("1 2 3\n")
    return {"count": 3}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_an_entry_is_made_once_and_found_again(store):
    calls = []

    def write(directory):
        calls.append(directory)
        return write_numbers(directory)

    first = store.produce("rows", {"seed": 1}, write)
    second = Store(store.root).produce("rows", {"seed": 1}, write)
    assert len(calls) == 1
    assert (second.digest, second.facts) == (first.digest, {"count": 3})


def test_other_inputs_give_another_entry_and_equal_files_an_equal_digest(store):
    first = store.produce("rows", {"seed": 1}, write_numbers)
    second = store.produce("rows", {"seed": 2}, write_numbers)
    assert first.key != second.key
    assert first.digest == second.digest


def test_a_writer_that_fails_leaves_nothing(store):
    def fail(directory):
        write_numbers(directory)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        store.produce("rows", {}, fail)
    assert list((store.root / "rows").iterdir()) == []


def test_what_a_killed_process_left_is_removed_when_its_entry_is_made(store):
    key, other = store.key("rows", {}), store.key("rows", {"seed": 1})
    left = [store.root / "rows" / f".{name[:12]}-abcd1234" for name in (key, other)]
    for path in left:
        path.mkdir(parents=True)
        write_numbers(path)
    store.produce("rows", {}, write_numbers)
    assert not left[0].exists()
    assert left[1].exists(), "nothing says that nobody works in another entry's"
    store.produce("rows", {"seed": 1}, write_numbers)
    assert sorted(path.name for path in (store.root / "rows").iterdir()) == sorted([key, other])


def make_in_another_process(store, kind, inputs):
    """Begin an entry in another process, and return the process and its folder, in which a file stands by then."""
    code = f"""
import pathlib, sys, time
from tasks.contracts.store import Store
def write(directory):
    (directory / "work").mkdir()
    (directory / "work" / "numbers.txt").write_text("1 2 3")
    print(directory, flush=True)
    sys.stdin.read()
    (directory / "work" / "numbers.txt").write_text("4 5 6")
    return {{}}
Store(pathlib.Path({str(store.root)!r})).produce({kind!r}, {inputs!r}, write)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    )
    return process, Path(process.stdout.readline().strip())


def test_what_killed_processes_left_of_other_entries_is_removed_when_any_is_made(store):
    for kind in ("dataset", "rows"):
        process, left = make_in_another_process(store, kind, {"seed": 2})
        process.kill()
        process.communicate()
        assert (left / "work" / "numbers.txt").exists()
    made = store.produce("rows", {}, write_numbers)
    assert store.unfinished() == []
    assert [path for kind in ("dataset", "rows") for path in (store.root / kind).iterdir()] == [made.path]


def test_a_folder_in_which_another_process_works_stays(store):
    process, working = make_in_another_process(store, "rows", {"seed": 2})
    try:
        store.produce("rows", {}, write_numbers)
        assert store.unfinished() == [working]
    finally:
        process.communicate("")
    entry = store.find("rows", store.key("rows", {"seed": 2}))
    assert (entry.path / "work" / "numbers.txt").read_text() == "4 5 6"


def test_a_folder_in_which_this_process_works_stays_while_it_makes_another_entry(store):
    def write(directory):
        write_numbers(directory)
        store.produce("lineage", {}, write_numbers)
        return {"stays": (directory / "numbers.txt").exists()}

    assert store.produce("rows", {}, write).facts == {"stays": True}


def test_a_directory_in_work_is_no_entry(store):
    entry = store.produce("rows", {}, write_numbers)
    entry.path.rename(entry.path.with_name(f".{entry.key[:12]}-abcd1234"))
    assert list(store.entries("rows")) == []


def test_a_directory_without_a_manifest_does_not_exist(store):
    entry = store.produce("rows", {}, write_numbers)
    (entry.path / "manifest.json").unlink()
    again = Store(store.root)
    assert again.find("rows", entry.key) is None
    assert again.produce("rows", {}, write_numbers).digest == entry.digest


def test_a_damaged_entry_is_set_aside_and_made_again(store):
    entry = store.produce("rows", {}, write_numbers)
    (entry.path / "numbers.txt").write_text("1 2 4\n")
    again = Store(store.root).produce("rows", {}, write_numbers)
    assert (again.path / "numbers.txt").read_text() == "1 2 3\n"
    aside = list((store.root / ".damaged").iterdir())
    assert [(path / "numbers.txt").read_text() for path in aside] == ["1 2 4\n"]


@pytest.mark.parametrize("name", ["added.bin", "folder/added.bin", "folder/manifest.json"])
def test_a_file_that_the_manifest_does_not_list_is_damage(store, name):
    entry = store.produce("rows", {}, write_numbers)
    assert damage_of(entry.path) == ""
    (entry.path / name).parent.mkdir(exist_ok=True)
    (entry.path / name).write_text("x")
    assert damage_of(entry.path) == f"{name} is not in its manifest"


def test_byte_code_beside_the_sources_is_no_damage(store):
    entry = store.produce("rows", {}, write_numbers)
    (entry.path / "__pycache__").mkdir()
    (entry.path / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
    assert damage_of(entry.path) == ""


def test_a_manifest_that_was_edited_does_not_vouch_for_its_files(store):
    entry = store.produce("rows", {}, write_numbers)
    manifest = json.loads((entry.path / "manifest.json").read_text())
    (entry.path / "numbers.txt").unlink()
    del manifest["files"]["numbers.txt"]
    (entry.path / "manifest.json").write_text(json.dumps(manifest))
    assert damage_of(entry.path) == "its manifest does not have its own digest"


def test_the_manifest_names_every_file_with_sha256_and_size(store):
    entry = store.produce("rows", {"seed": 1}, write_numbers)
    manifest = json.loads((entry.path / "manifest.json").read_text())
    assert manifest["files"]["numbers.txt"]["bytes"] == 6
    assert len(manifest["files"]["numbers.txt"]["sha256"]) == 64
    assert manifest["inputs"] == {"seed": 1}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(store):
    def fill_the_disk(directory):
        # /dev/full is a real device that answers every write with "no space left".
        (directory / "rows.jsonl").symlink_to("/dev/full")
        with (directory / "rows.jsonl").open("w") as file:
            file.write("x")
        return {}

    with pytest.raises(StoreError, match=r"No space left.*LLM_RETRAIN_HOME") as raised:
        store.produce("rows", {}, fill_the_disk)
    assert raised.value.__cause__.errno == errno.ENOSPC
    assert list((store.root / "rows").iterdir()) == []


def test_a_lookup_only_store_makes_nothing(store):
    lookup = LookupOnlyStore(store.root)
    with pytest.raises(NotInStore):
        lookup.produce("rows", {}, write_numbers)
    made = store.produce("rows", {}, write_numbers)
    assert lookup.produce("rows", {}, write_numbers).digest == made.digest
