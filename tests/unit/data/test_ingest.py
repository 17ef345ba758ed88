import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.contracts.config import DataSection, DocstringSource
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import LookupOnlyStore, NotInStore, Store, read_manifest
from tasks.data.ingest import _sizes_of, ingest
from tasks.data.sources import Shard, docstrings


def looking_up(place):
    """Return the place with a store that makes nothing."""
    return replace(place, store=LookupOnlyStore(place.store.root))


GOOD = {"instruction": "Hello?", "output": "Yes."}


def test_rows_read_are_rows_kept_and_rejected_lines(write_lines, data_of, place):
    data = data_of(write_lines(GOOD, b"x", b"", b"\xff", {"a": 1}, [], {**GOOD, "output": ""}))
    rows = ingest(data, place, data.sources)
    assert (rows.rows_read, rows.rows_kept) == (6, 2)
    assert rows.rejected == {"not JSON": 1, "not UTF-8": 1, "not a usable conversation": 2}
    assert len(list(read_jsonl(rows.path / "rows-00000.jsonl"))) == 2
    assert [record["line"] for record in read_jsonl(rows.path / "rejected.jsonl")] == [2, 4, 5, 6]


def test_an_empty_file_is_a_row_set_without_rows(write_lines, data_of, place):
    data = data_of(write_lines())
    rows = ingest(data, place, data.sources)
    assert (rows.rows_read, rows.rows_kept, rows.rejected) == (0, 0, {})


def test_a_file_of_malformed_lines_alone_still_adds_up(write_lines, data_of, place):
    data = data_of(write_lines(b"x", b"y"))
    rows = ingest(data, place, data.sources)
    assert (rows.rows_read, rows.rows_kept, rows.rejected) == (2, 0, {"not JSON": 2})


def test_several_sources_follow_each_other(write_lines, place):
    sources = (write_lines(GOOD, name="b.jsonl"), write_lines(GOOD, GOOD, name="a.jsonl"))
    rows = ingest(DataSection(sources=sources), place, sources)
    assert [row["source"] for row in read_jsonl(rows.path / "rows-00000.jsonl")] == ["b.jsonl", "a.jsonl", "a.jsonl"]


def test_malformed_lines_of_files_with_the_same_name_are_told_apart_by_their_source(write_lines, place, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    sources = (write_lines(GOOD, b"x" * 5_000, name="a/rows.jsonl"), write_lines(b"y", GOOD, name="b/rows.jsonl"))
    rows = ingest(DataSection(sources=sources, max_malformed_share=1), place, sources)
    records = list(read_jsonl(rows.path / "rejected.jsonl"))
    assert [(record["source"], record["source_index"], record["line"]) for record in records] == [
        ("rows.jsonl", 0, 2),
        ("rows.jsonl", 1, 1),
    ]
    assert [record["excerpt"] for record in records] == ["x" * 2_000, "y"]


def test_unchanged_content_is_found_again_in_another_directory(write_lines, data_of, place, tmp_path):
    """Same content, same key: a look-up alone finds what another directory's file made."""
    source = write_lines(GOOD)
    made = ingest(data_of(source), place, (source,))
    moved = tmp_path / "elsewhere" / "rows.jsonl"
    moved.parent.mkdir()
    Path(source.path).rename(moved)
    there = source.model_copy(update={"path": str(moved)})
    assert ingest(data_of(there), looking_up(place), (there,)) == made


def test_no_absolute_path_enters_the_store(write_lines, data_of, place, tmp_path):
    source = write_lines(GOOD, b"x")
    rows = ingest(data_of(source), place, (source,))
    assert str(tmp_path) not in json.dumps(read_manifest(rows.path))
    assert (
        str(tmp_path) not in (rows.path / "rows-00000.jsonl").read_text() + (rows.path / "rejected.jsonl").read_text()
    )


@pytest.mark.parametrize("change", ["content", "slice", "name", "share"])
def test_what_changes_the_rows_changes_the_key(write_lines, data_of, place, change):
    source = write_lines(GOOD)
    ingest(data_of(source), place, (source,))
    other, settings = source, {}
    if change == "content":
        other = write_lines(GOOD, GOOD)
    if change == "slice":
        other = source.model_copy(update={"slice": "chat"})
    if change == "name":
        other = write_lines(GOOD, name="other.jsonl")
    if change == "share":
        settings = {"max_malformed_share": 0.5}
    with pytest.raises(NotInStore):
        ingest(data_of(other, **settings), looking_up(place), (other,))


def test_documented_functions_become_rows_and_are_found_again(place, tmp_path, monkeypatch):
    library = tmp_path / "library"
    library.mkdir()
    (library / "shop.py").write_text(
        'def total(items, tax):\n    """Sum the prices of all items."""\n'
        "    return sum(item.price for item in items) * (1 + tax)\n"
    )
    monkeypatch.setattr(docstrings, "_standard_library", lambda: library)
    data = DataSection(sources=(DocstringSource(instruction="Say what it does."),))
    made = ingest(data, place, data.sources)
    [row] = read_jsonl(made.path / "rows-00000.jsonl")
    assert row["messages"][0]["content"].startswith("Say what it does.\n\ndef total(items, tax):\n    return")
    assert row["messages"][1]["content"] == "Sum the prices of all items."
    assert (row["source"], row["slice"]) == ("docstrings", "shop")
    assert row["meta"] == {"file": "shop.py", "function": "total"}
    assert ingest(data, looking_up(place), data.sources) == made


def test_a_file_that_stops_the_run_leaves_nothing_in_the_store(write_lines, data_of, place):
    source = write_lines(GOOD, b"x")
    with pytest.raises(DataError, match="1 of 2 records are malformed"):
        ingest(data_of(source, max_malformed_share=0.1), place, (source,))
    assert list(place.store.entries("rows")) == []


def test_a_bad_evaluation_source_is_named_by_its_own_config_key(write_lines, place, tmp_path):
    missing = write_lines(GOOD).model_copy(update={"path": str(tmp_path / "none.jsonl")})
    data = DataSection(evaluation_sources=(missing,))
    with pytest.raises(DataError, match=r"^data\.evaluation_sources names .* does not exist"):
        ingest(data, place, data.evaluation_sources)


def test_no_source_at_all_is_one_sentence(place):
    with pytest.raises(DataError, match=r"^data\.sources is empty; expected at least one source"):
        ingest(DataSection(sources=()), place, ())


def test_the_plain_functions_do_not_import_prefect_or_other_heavy_libraries():
    """The look-up of a finished run must cost milliseconds."""
    program = (
        "import sys, tasks.data.ingest, tasks.data.build, tasks.data.division.split; "
        "print(sorted({'prefect', 'torch', 'mlflow', 'sklearn', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stored_rows_are_read_once(write_lines, data_of, place, monkeypatch):
    source = write_lines(GOOD)
    made = ingest(data_of(source), place, (source,))
    monkeypatch.setattr("tasks.data.ingest.run_jobs", None)
    again = replace(place, store=Store(place.store.root))
    assert ingest(data_of(source), again, (source,)) == made


def test_pieces_of_a_parquet_file_share_its_bytes(tmp_path):
    """They are cut by row groups; a few row groups are not a few bytes, and several processes are worth it."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(bytes(900))
    pieces = [Shard(0, "rows.parquet", str(path), start, start + 1, file_format="parquet") for start in range(3)]
    others = [Shard(0, "rows.jsonl", str(path), 100, 400), Shard(0, "docstrings", "")]
    assert _sizes_of([*pieces, *others]) == [225, 225, 225, 300, 0]
    assert _sizes_of(pieces) == [300, 300, 300]


def test_the_pieces_of_many_files_are_counted_once_and_not_compared_with_each_other(tmp_path):
    compared = 0

    class Named(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    paths = [tmp_path / f"{number}.parquet" for number in range(100)]
    for path in paths:
        path.write_bytes(b"12")
    pieces = [Shard(0, path.name, Named(path), start, 0, file_format="parquet") for path in paths for start in (0, 1)]
    assert _sizes_of(pieces) == [1] * 200
    assert compared <= 400
