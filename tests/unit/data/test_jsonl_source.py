import json
from pathlib import Path

import pytest

from tasks.contracts.config import JsonlSource
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of_file
from tasks.data.jsonl_source import fingerprint, read_rows
from tasks.data.rows import Rejection, answer_of

GOOD = {"instruction": "Hello?", "output": "Yes."}
KEY = "data.sources"


def read(source, max_malformed_share=1.0):
    return list(read_rows(source, fingerprint(source, KEY), max_malformed_share, KEY))


def test_every_line_becomes_a_row_with_the_file_name_and_the_slice(write_lines):
    source = write_lines(GOOD, {**GOOD, "output": "No."}).model_copy(update={"slice": "chat"})
    rows = read(source)
    assert [(answer_of(row), row["source"], row["slice"]) for row in rows] == [
        ("Yes.", "rows.jsonl", "chat"),
        ("No.", "rows.jsonl", "chat"),
    ]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"instruction": "x"', "not JSON", "delimiter"),
        (b"[" * 100_000, "not JSON", "recursion"),
        (b"1" * 5_000, "not JSON", "digits"),
        (b'{"instruction": "\xe9"}', "not UTF-8", "byte 18 of the line is 0xe9"),
        (b'"text"', "not a usable conversation", "expected a JSON object, found text"),
        (b'{"instruction": "x", "output": "\\ud83d"}', "not a usable conversation", "surrogate"),
    ],
)
def test_a_malformed_line_is_set_aside_with_file_line_reason_and_excerpt(write_lines, line, reason, detail):
    _, rejection, last = read(write_lines(GOOD, line, GOOD))
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.source, rejection.line) == (reason, "rows.jsonl", 2)
    assert detail in rejection.detail
    assert rejection.excerpt == line.decode("utf-8", errors="replace")[:2_000]
    assert answer_of(last) == "Yes."


def test_blank_lines_are_no_lines_but_are_numbered(write_lines):
    results = read(write_lines(b"", GOOD, b"  \t", b"x"))
    assert [type(result) for result in results] == [dict, Rejection]
    assert results[1].line == 4


def test_a_byte_order_mark_carriage_returns_and_line_separators_do_no_harm(write_lines):
    record = json.dumps({"instruction": "a\u2028b", "output": "Yes."}, ensure_ascii=False).encode()
    rows = read(write_lines(b"\xef\xbb\xbf" + record + b"\r", record + b"\r"))
    assert [row["messages"][0]["content"] for row in rows] == ["a\u2028b"] * 2


def test_the_last_line_needs_no_line_feed(write_lines):
    source = write_lines(GOOD)
    Path(source.path).write_bytes(Path(source.path).read_bytes().rstrip())
    assert len(read(source)) == 1


def test_malformed_lines_up_to_the_allowed_share_are_no_error(write_lines):
    assert len(read(write_lines(GOOD, b"x", b"", GOOD, GOOD), max_malformed_share=0.25)) == 4


def test_more_malformed_lines_than_allowed_are_one_sentence_with_counts_and_the_first_three(write_lines):
    source = write_lines(GOOD, b"", b"x", GOOD, b"\xff", b'"text"', b"y")
    with pytest.raises(DataError) as caught:
        read(source, max_malformed_share=0.25)
    assert str(caught.value) == (
        f"data.sources names {source.path!r}, in which 4 of 6 lines are malformed, more than the share of 0.25 that "
        "data.max_malformed_share allows; the first: "
        "rows.jsonl:3: not JSON (Expecting value: line 1 column 1 (char 0)); "
        "rows.jsonl:5: not UTF-8 (byte 1 of the line is 0xff); "
        "rows.jsonl:6: not a usable conversation (expected a JSON object, found text)"
    )


def test_a_missing_file_is_named_with_its_config_key(tmp_path):
    source = JsonlSource(path=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError) as caught:
        fingerprint(source, "data.evaluation_sources")
    assert str(caught.value) == (
        f"data.evaluation_sources names {source.path!r}, which does not exist; expected a JSONL file"
    )


def test_a_missing_relative_path_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"'none\.jsonl', which does not exist \(looked in {tmp_path}\)"):
        fingerprint(JsonlSource(path="none.jsonl"), KEY)


def test_a_directory_is_not_a_file(tmp_path):
    with pytest.raises(DataError, match=r"^data\.sources names .* which is not a file; expected a JSONL file$"):
        fingerprint(JsonlSource(path=str(tmp_path)), KEY)


@pytest.mark.parametrize("path", ["bad\0name", "x" * 300, "/proc/self/mem"])
def test_a_path_that_cannot_be_read_is_one_sentence(path):
    with pytest.raises(DataError, match=r"^data\.sources names .*; expected a (readable )?JSONL file$"):
        fingerprint(JsonlSource(path=path), KEY)


def test_a_file_that_changes_while_it_is_read_is_not_stored_under_its_old_digest(write_lines):
    source = write_lines(GOOD)
    before = fingerprint(source, KEY)
    with Path(source.path).open("a") as file:
        file.write(json.dumps(GOOD) + "\n")
    with pytest.raises(DataError, match="changed while it was read; run again"):
        list(read_rows(source, before, 1.0, KEY))


def test_the_fingerprint_is_the_sha256_of_the_bytes(write_lines):
    source = write_lines(GOOD)
    assert fingerprint(source, KEY) == digest_of_file(Path(source.path))
