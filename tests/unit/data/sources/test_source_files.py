import codecs
import csv
import gzip
import io
import itertools
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.source_config import FilesSource
from tasks.data.sources import files, open_source, read_shard, shard

CHINESE = [{"instruction": f"心肌梗死是什么？第{number}问", "output": f"是一种急症。{number}"} for number in range(50)]


def as_csv(records, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def spelled(records, name, lines):
    """Spell records in the format that a file of this name has."""
    if name.endswith((".jsonl", ".ndjson")):
        return lines(records)
    if name.endswith(".json"):
        return json.dumps(records, ensure_ascii=False, indent=1)
    return as_csv(records, "\t" if name.endswith(".tsv") else ",")


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv"])
def test_text_files_are_read_plain_and_packed(tmp_path, read, rows, answers, lines, name, packed):
    content = spelled(rows, name, lines).encode()
    if packed:
        content = gzip.compress(content) if packed == ".gz" else pa.compress(content, "zstd", asbytes=True)
    path = tmp_path / (name + packed)
    path.write_bytes(content)
    reading = read(FilesSource(path=str(path), slice="chat"))
    assert (reading.answers, reading.rejections) == (answers, [])
    assert {(row["source"], row["slice"]) for row in reading.rows} == {(name + packed, "chat")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-be-marked", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.csv.gz"])
def test_the_encoding_is_found(tmp_path, read, lines, name, encoding):
    text = spelled(CHINESE, name.removesuffix(".gz"), lines)
    content = (
        codecs.BOM_UTF16_BE + text.encode("utf-16-be") if encoding == "utf-16-be-marked" else text.encode(encoding)
    )
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    reading = read(FilesSource(path=str(path)))
    assert reading.answers == [row["output"] for row in CHINESE]
    assert reading.rows[0]["messages"][0]["content"] == CHINESE[0]["instruction"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_found_where_it_is_plain(tmp_path, read, rows, answers, lines, encoding):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows).encode(encoding))
    assert read(FilesSource(path=str(path))).answers == answers


def test_gb18030_is_found_where_it_begins_after_a_megabyte_of_ascii(tmp_path, read, lines):
    plain = [{"instruction": "x" * 1_000, "output": "y"}] * 1_500
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([*plain, *CHINESE]).encode("gb18030"))
    reading = read(FilesSource(path=str(path)))
    assert reading.rejections == []
    assert reading.answers[-1] == CHINESE[-1]["output"]


def test_one_line_that_is_no_utf8_does_not_make_the_file_gb18030(tmp_path, read, lines):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(CHINESE).encode() + lines(CHINESE[:1]).encode("gb18030"))
    reading = read(FilesSource(path=str(path)))
    assert len(reading.rows) == len(CHINESE)
    assert reading.reasons == ["not UTF-8"]


def test_latin1_is_not_taken_for_gb18030_and_is_read_when_it_is_named(tmp_path, read, lines):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"instruction": "Où est le café déjà fermé ?", "output": "Là, à côté."}]).encode("latin-1"))
    assert read(FilesSource(path=str(path))).reasons == ["not UTF-8"]
    assert read(FilesSource(path=str(path), encoding="latin-1")).answers == ["Là, à côté."]


def test_latin1_that_happens_to_be_pairs_of_gb18030_is_not_taken_for_chinese(tmp_path, read, lines):
    content = lines([{"instruction": "Wo ist die Tür für Männer?", "output": "Grün, hör zu."}] * 20).encode("latin-1")
    assert content.decode("gb18030")
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert set(read(FilesSource(path=str(path))).reasons) == {"not UTF-8"}


@pytest.mark.parametrize("encoding", ["zip", "unicode_escape", "utf-7", "rot13", "nonsense", "idna", "cp037", "a\0b"])
def test_what_is_no_encoding_of_text_files_is_a_config_error(encoding):
    with pytest.raises(ValueError, match="expected auto or a text encoding"):
        FilesSource(path="x", encoding=encoding)


def test_parquet_is_read_with_nested_columns_and_by_pieces_of_row_groups(tmp_path, read, monkeypatch):
    records = [
        {"chat": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}], "n": n, "s": "a"}
        for n in range(100)
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=10)
    monkeypatch.setattr("tasks.data.sources.parquet_records.SHARD_BYTES", 2_000)
    reading = read(FilesSource(path=str(path), columns={"messages": "chat"}, slice_column="s"))
    assert reading.answers == [f"{n}!" for n in range(100)]
    assert reading.rows[0]["slice"] == "a"
    assert len(reading.opened.shards) > 1
    assert [piece.start for piece in reading.opened.shards[1:]] == [piece.stop for piece in reading.opened.shards[:-1]]


def test_a_row_of_a_parquet_file_that_is_none_is_set_aside_with_its_number(tmp_path, read):
    path = tmp_path / "a.parquet"
    records = [
        {"instruction": "x", "output": "y"},
        {"instruction": None, "output": "y"},
        {"instruction": "z", "output": "w"},
    ]
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=1)
    reading = read(FilesSource(path=str(path)))
    assert reading.answers == ["y", "w"]
    assert [(bad.line, bad.reason) for bad in reading.rejections] == [(2, "not a usable conversation")]


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "data": ROWS, "more": {"a": [{}], "b": "]}"}}',
        '{"tags": ["a", "b"], "scores": [1, 2], "rows": ROWS}',
        "\n\n  ROWS  \n",
    ],
)
def test_json_is_a_list_or_an_object_with_one(tmp_path, read, rows, answers, text):
    path = tmp_path / "a.json"
    path.write_text(text.replace("ROWS", json.dumps(rows)))
    reading = read(FilesSource(path=str(path)))
    assert (reading.answers, reading.rejections) == (answers, [])


def test_a_json_file_of_lines_is_read_as_lines(tmp_path, read, rows, answers, lines):
    path = tmp_path / "a.json"
    path.write_text(lines(rows))
    reading = read(FilesSource(path=str(path)))
    assert (reading.answers, reading.rejections) == (answers, [])


def test_a_named_format_goes_before_the_name_of_the_file(tmp_path, read, rows, answers, lines):
    path = tmp_path / "rows.txt"
    path.write_text(lines(rows))
    assert read(FilesSource(path=str(path), file_format="jsonl")).answers == answers
    with pytest.raises(DataError, match=r"^data\.sources names .*unknown format.*'\.txt'.*file_format$"):
        read(FilesSource(path=str(path)))


def test_a_pattern_finds_files_in_folders_and_their_order_and_place_do_not_change_the_digest(
    tmp_path, read, rows, lines
):
    digests = set()
    for folder, names in (("one", ["a", "b", "c"]), ("two", ["c", "b", "a"])):
        for number, name in enumerate(names):
            path = tmp_path / folder / (f"deep/{name}" if number else name) / f"{name}.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text(lines([*rows[:2], {"instruction": name, "output": name}]))
        reading = read(FilesSource(path=str(tmp_path / folder / "**" / "*.jsonl")))
        assert len(reading.rows) == 9
        digests.add((reading.opened.digest, tuple(piece.name for piece in reading.opened.shards)))
    assert len(digests) == 1


def test_content_name_and_row_settings_change_the_digest_and_the_folder_does_not(tmp_path, rows, lines):
    def digest(name="a.jsonl", folder="x", records=rows, **settings):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines(records))
        return open_source(FilesSource(path=str(path), **settings), 0, "data.sources", tmp_path).digest

    assert digest() == digest(folder="y")
    others = [digest(name="b.jsonl"), digest(records=rows[:1]), digest(slice="s"), digest(slice_column="input")]
    assert len({digest(), *others}) == 5


@pytest.mark.parametrize("tail", ["\n", ""])
def test_a_large_file_is_cut_at_line_ends_and_nothing_is_lost_or_read_twice(tmp_path, read, monkeypatch, lines, tail):
    monkeypatch.setattr(files, "SHARD_BYTES", 1_000)
    monkeypatch.setattr(files, "BLOCK_BYTES", 300)
    random.seed(1)
    records = [{"instruction": f"{n}?", "output": "x" * random.randint(0, 700)} for n in range(300)]
    content = lines(records).splitlines()
    content[150] = "broken"
    content.insert(200, "")
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(content) + tail)
    reading = read(FilesSource(path=str(path)))
    assert reading.answers == [record["output"] for record in records[:150] + records[151:]]
    assert [(bad.line, bad.reason) for bad in reading.rejections] == [(151, "not JSON")]
    pieces = reading.opened.shards
    assert len(pieces) > 20
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert all(piece.stop - piece.start < 2_500 for piece in pieces[:-1])


def test_a_line_longer_than_a_piece_is_one_piece(tmp_path, read, monkeypatch, lines):
    monkeypatch.setattr(files, "SHARD_BYTES", 100)
    records = [{"instruction": "x", "output": "y" * 1_000}, {"instruction": "x", "output": "z"}]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(records))
    assert read(FilesSource(path=str(path))).answers == [record["output"] for record in records]


def test_pieces_can_be_read_in_any_order_and_process(tmp_path, monkeypatch, lines, read):
    from concurrent.futures import ProcessPoolExecutor

    monkeypatch.setattr(files, "SHARD_BYTES", 2_000)
    path = tmp_path / "a.jsonl"
    path.write_text(lines({"instruction": f"{n}?", "output": f"{n}"} for n in range(200)))
    source = FilesSource(path=str(path))
    reading = read(source)
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(rows_of, reversed(reading.opened.shards), itertools.repeat(source)))
    assert list(itertools.chain(*reversed(results))) == reading.rows


def rows_of(piece, source):
    return list(read_shard(piece, source))


def test_a_file_that_changes_after_it_was_opened_is_not_read(tmp_path, rows, lines):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    source = FilesSource(path=str(path))
    opened = open_source(source, 0, "data.sources", tmp_path)
    with path.open("a") as file:
        file.write(lines(rows))
    with pytest.raises(DataError, match=r"'a\.jsonl', which changed while it was read; run again"):
        list(read_shard(opened.shards[0], source))


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("none.jsonl", "does not exist"),
        ("*.jsonl", "matches no file"),
        ("", "is a folder"),
        ("a\0b", "holds a NUL character"),
        ("x" * 300, "cannot be read"),
    ],
)
def test_a_place_without_files_is_one_sentence(tmp_path, read, named, problem):
    with pytest.raises(DataError, match=rf"^data\.sources names .*{problem}.*; expected"):
        read(FilesSource(path=f"{tmp_path}/{named}"))


def test_a_missing_relative_path_says_where_it_was_looked_for(tmp_path, read, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"'none\.jsonl', which does not exist \(looked in {tmp_path}\)"):
        read(FilesSource(path="none.jsonl"))


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path, read, rows, lines):
    path = tmp_path / "rows[1].jsonl"
    path.write_text(lines(rows))
    assert len(read(FilesSource(path=str(path))).rows) == 5


def test_a_name_that_is_no_utf8_does_not_spoil_the_rows(tmp_path, read, rows, lines):
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jsonl")).write_text(lines(rows))
    assert {row["source"] for row in read(FilesSource(path=f"{tmp_path}/*.jsonl")).rows} == {"?.jsonl"}


def test_a_file_url_is_a_local_file(tmp_path, read, rows, lines):
    (tmp_path / "a.jsonl").write_text(lines(rows))
    assert len(read(FilesSource(path=f"file://{tmp_path}/*.jsonl")).rows) == 5


@pytest.fixture
def memory():
    import fsspec

    store = fsspec.filesystem("memory")
    store.rm("/", recursive=True) if store.exists("/bucket") else None
    yield store
    store.store.clear()


def test_remote_files_are_copied_once_for_each_content(tmp_path, read, rows, answers, lines, memory, monkeypatch):
    opened = []
    plain = type(memory).open
    monkeypatch.setattr(
        type(memory), "open", lambda self, path, *rest, **more: opened.append(path) or plain(self, path, *rest, **more)
    )
    memory.pipe("/bucket/day/a.jsonl", lines(rows[:2]).encode())
    memory.pipe("/bucket/day/b.csv.gz", gzip.compress(as_csv(rows[2:]).encode()))
    source = FilesSource(path="memory://bucket/**/*")
    opened.clear()
    first = read(source)
    assert first.answers == answers
    assert [piece.name for piece in first.opened.shards] == ["a.jsonl", "b.csv.gz"]
    assert len(opened) == 2
    assert read(source).opened.digest == first.opened.digest
    assert len(opened) == 2

    memory.pipe("/bucket/day/a.jsonl", lines(rows[:1]).encode())
    opened.clear()
    assert read(source).answers == [answers[0], *answers[2:]]
    assert len(opened) == 1
    copies = [path for path in (tmp_path / "cache" / "remote").rglob("*") if path.is_file()]
    assert len(copies) == 2


@pytest.mark.parametrize(
    ("url", "error", "reason"),
    [
        ("memory://bucket/none.jsonl", DataError, "matches no file"),
        ("zip://a.jsonl::memory://x.zip", DataError, "is not read; expected"),
        ("reference://x", DataError, "kind 'reference' is not read"),
        ("gs://bucket/a.jsonl", EnvironmentProblem, "needs the package gcsfs"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence(read, url, error, reason, memory):
    with pytest.raises(error, match=rf"^data\.sources names .*{reason}"):
        read(FilesSource(path=url))


def test_a_password_in_a_url_is_a_config_error():
    with pytest.raises(ValueError, match="secrets come from the environment"):
        FilesSource(path="sftp://me:secret@host/a.jsonl")


def test_reading_imports_nothing_heavy():
    import subprocess
    import sys

    heavy = (
        "[m for m in ('torch', 'datasets', 'sqlalchemy', 'httpx', 'pandas', 'pyarrow', 'fsspec') if m in sys.modules]"
    )
    code = f"import sys, tasks.data.sources; print({heavy})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_piece_is_small_enough_to_be_sent_to_another_process():
    import pickle

    assert len(pickle.dumps(shard.Shard(0, "a.jsonl", "/x/a.jsonl"))) < 1_000
    assert Path(shard.__file__).is_file()
