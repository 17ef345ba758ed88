import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tasks.contracts.errors import DataError
from tasks.data.sources import materialised
from tasks.data.sources.materialised import MaterialisedSource, open_materialised, spelled

KEY = "data.sources"


@pytest.fixture
def run(tmp_path):
    """One nightly run: offer records with their marks, as a query with >= would; return all that is kept."""

    def once(*records):
        with open_materialised(tmp_path, {"query": 1}, KEY) as chunks:
            chunks.append(({"n": name, "at": mark}, mark) for name, mark in records)
            return kept(chunks)

    return once


def kept(chunks):
    lines = [line for shard in chunks.shards(0, "x") for line in Path(shard.path).read_bytes().splitlines()]
    return [json.loads(line)["n"] for line in lines]


def test_a_run_adds_what_is_new_and_equal_marks_at_the_edge_are_neither_lost_nor_doubled(run):
    assert run(("a", 1), ("b", 2)) == ["a", "b"]
    assert run(("b", 2), ("late", 2), ("c", 3)) == ["a", "b", "late", "c"]
    assert run(("c", 3)) == ["a", "b", "late", "c"]
    assert run(("c", 3), ("c", 3)) == ["a", "b", "late", "c", "c"]
    assert run(("c", 3), ("c", 3)) == ["a", "b", "late", "c", "c"]


def test_what_an_interface_sends_again_from_before_the_mark_is_not_doubled(run):
    run(("a", 1), ("b", 2))
    assert run(("a", 1), ("b", 2), ("c", 3)) == ["a", "b", "c"]


def test_records_need_no_order(run):
    assert run(("c", 3), ("a", 1), ("b", 2)) == ["c", "a", "b"]
    assert run(("c", 3), ("d", 4)) == ["c", "a", "b", "d"]


def test_the_content_is_the_same_in_one_run_or_many_and_in_any_order(tmp_path):
    def content(*runs):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for records in runs:
            with open_materialised(folder, {}, KEY) as chunks:
                chunks.append(({"n": n}, n) for n in records)
        return chunks.content()

    assert content([1, 2, 3, 4]) == content([2, 1], [3], [4]) == content([4, 3, 2, 1])
    assert content([1, 2, 3]) != content([1, 2, 4]) != content([1, 2, 3, 4])


@pytest.mark.parametrize("moment", ["in the chunk", "before the state"])
def test_a_crash_loses_nothing_and_doubles_nothing(tmp_path, run, monkeypatch, moment):
    run(("a", 1))

    def crash(*_):
        raise KeyboardInterrupt

    def broken():
        yield {"n": "b"}, 2
        crash()

    with pytest.raises(KeyboardInterrupt), open_materialised(tmp_path, {"query": 1}, KEY) as chunks:
        if moment == "before the state":
            monkeypatch.setattr(MaterialisedSource, "_save", crash)
            chunks.append([({"n": "b"}, 2)])
        else:
            chunks.append(broken())
    monkeypatch.undo()
    with open_materialised(tmp_path, {"query": 1}, KEY) as chunks:
        assert kept(chunks) == ["a"]
        assert chunks.state.watermark == 1
    assert run(("a", 1), ("b", 2)) == ["a", "b"]
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["chunk-000001.jsonl", "chunk-000002.jsonl", "lock", "state.json"]


def test_a_source_that_is_read_whole_replaces_what_was_read(tmp_path):
    for records in (["a", "b"], ["b"], []):
        with open_materialised(tmp_path, {}, KEY) as chunks:
            chunks.replace([{"n": n} for n in records], "input")
            assert kept(chunks) == records
    assert len(list(tmp_path.rglob("chunk-*"))) == 0


def test_a_crash_while_a_source_is_replaced_leaves_the_old_content(tmp_path):
    def broken():
        yield {"n": "c"}
        raise ValueError("the server is gone")

    with open_materialised(tmp_path, {}, KEY) as chunks:
        chunks.replace([{"n": "a"}])
    with pytest.raises(ValueError, match="gone"), open_materialised(tmp_path, {}, KEY) as chunks:
        chunks.replace(broken())
    with open_materialised(tmp_path, {}, KEY) as chunks:
        assert kept(chunks) == ["a"]


@pytest.mark.parametrize(
    "marks",
    [
        (1, 2),
        (1.5, 2.5),
        ("a", "b"),
        (date(2026, 1, 2), date(2026, 1, 3)),
        (datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, 3, 4, 5, 7)),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)),
        (Decimal("1.10"), Decimal("1.11")),
    ],
    ids=lambda marks: type(marks[0]).__name__,
)
def test_a_mark_keeps_its_type(tmp_path, run, marks):
    run(("a", marks[0]), ("b", marks[1]))
    with open_materialised(tmp_path, {"query": 1}, KEY) as chunks:
        assert chunks.state.watermark == marks[1]
        assert type(chunks.state.watermark) is type(marks[1])
    assert run(("b", marks[1])) == ["a", "b"]


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ((1, None), "whose watermark is null"),
        ((1, "x"), "the watermarks text and a number, which cannot be compared"),
        ((True,), "whose watermark is a boolean"),
        (([1],), "expected a"),
    ],
)
def test_a_mark_that_is_none_is_one_sentence_and_nothing_is_kept(run, marks, reason):
    with pytest.raises(DataError, match=rf"^data\.sources has .*{reason}"):
        run(*[(str(n), mark) for n, mark in enumerate(marks)])
    assert run() == []


def test_too_many_records_with_one_mark_are_refused(run, monkeypatch):
    monkeypatch.setattr(materialised, "MAX_EDGE_RECORDS", 3)
    assert len(run(*[(n, 1) for n in range(3)])) == 3
    with pytest.raises(DataError, match="more than 3 records with one watermark; expected a finer one"):
        run((4, 1))


@pytest.mark.parametrize(
    "state", ["{", "[]", "{}", '{"chunks": [], "watermark": ["os", "1"], "edge": {}, "input": ""}']
)
def test_a_damaged_state_is_one_sentence(tmp_path, run, state):
    run(("a", 1))
    next(tmp_path.rglob("state.json")).write_text(state)
    with pytest.raises(DataError, match=r"is no state of a source .*; delete .* to read everything again"):
        run(("a", 1))


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_chunk_that_was_touched_is_not_read(tmp_path, run, harm):
    run(("a", 1))
    chunk = next(tmp_path.rglob("chunk-*"))
    chunk.write_text("{}\n") if harm == "changed" else chunk.unlink()
    with pytest.raises(DataError, match="to read everything again"):
        run()


def test_values_that_json_does_not_know_are_spelled_the_same_everywhere():
    record = {
        "b": b"text",
        "a": b"\xff",
        "d": Decimal("1.10"),
        "t": datetime(2026, 1, 2, 3, 4),
        "s": {"y", "x"},
        "big": 2**70,
    }
    assert json.loads(spelled(record, KEY)) == json.loads(spelled(dict(reversed(record.items())), KEY))
    assert json.loads(spelled(record, KEY))["a"] == "ff"
    assert json.loads(spelled(record, KEY))["d"] == "1.10"
    assert spelled({"b": 1, "a": "é"}, KEY) == b'{"a":"\xc3\xa9","b":1}\n'
    assert json.loads(spelled({"a": "\ud83d"}, KEY)) == {"a": "\ud83d"}
