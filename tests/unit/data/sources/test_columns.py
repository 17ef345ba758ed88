"""A field that the configuration names and no record has is a mistake, and never only a missing text."""

import json
import sqlite3

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.source_config import FilesSource, SqlSource
from tasks.data.ingest import ingest
from tasks.data.sources import files
from tasks.data.sources.columns import PartColumns

ROWS = [{"id": n, "title": f"T{n}", "ask": f"Q{n}?", "answer": {"text": f"A{n}."}} for n in range(120)]
MAPPED = {"instruction": "title + ask", "output": "answer.text"}
FOUND = "found 'id', 'title', 'ask', 'answer.text'$"


@pytest.fixture
def run(write_lines, place):
    """Ingest records through a column mapping."""

    def ingesting(records=ROWS, columns=MAPPED, execution=None, **settings):
        source = write_lines(*records).model_copy(update={"columns": columns, **settings})
        return ingest(DataSection(sources=(source,), execution=execution or {"processes": 1}), place, (source,))

    return ingesting


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {**MAPPED, "instruction": "title + asks"}}, "the column 'asks' "),
        ({"columns": {**MAPPED, "input": "inpt"}}, "the column 'inpt' "),
        ({"slice_column": "departement"}, "the column 'departement' "),
        ({"columns": {**MAPPED, "input": "answer.txt"}, "slice_column": "x"}, "the columns 'answer.txt', 'x' "),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_named_field_that_no_record_has_is_refused_with_what_was_found(run, monkeypatch, changes, said, processes):
    monkeypatch.setattr(files, "SHARD_BYTES", 2_000)
    with pytest.raises(DataError, match=rf"^data\.sources names {said}.* in none of 120 records; {FOUND}"):
        run(execution={"processes": processes}, **changes)


def test_a_field_of_a_single_record_in_the_last_part_is_enough(run, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 2_000)
    rows = run([*ROWS, {**ROWS[0], "note": None}], {**MAPPED, "input": "note"})
    assert rows.rows_kept == 121


def test_a_source_that_is_refused_before_its_end_names_the_field_too(run):
    """The question itself is named wrongly: every record is malformed, and not all of them are read."""
    with pytest.raises(DataError, match=rf"malformed.*names the column 'asks' .* that were read; {FOUND}"):
        run(columns={**MAPPED, "instruction": "asks"})


@pytest.mark.parametrize("records", [[], [b"x", b"[]"]])
def test_a_source_without_records_has_no_missing_fields(records, write_lines, place):
    source = write_lines(*records).model_copy(update={"columns": MAPPED})
    data = DataSection(sources=(source,), max_malformed_share=1)
    assert ingest(data, place, (source,)).rows_kept == 0


def test_where_a_parent_is_null_or_empty_the_field_below_it_may_be_right():
    source = FilesSource(path="a", columns={"instruction": "a.b", "input": "c.0.d", "output": "e.f"})
    columns = PartColumns(source)
    columns.look({"a": None, "c": [], "e": "text"})
    assert columns.unseen == ["e.f"]


def test_a_column_of_a_table_is_there_though_all_its_values_are_null(place, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"ask": ["Q?"], "answer": ["A."], "note": pa.array([None], pa.string())})
    parquet.write_table(table, tmp_path / "rows.parquet")
    for note, kept in (("note", 1), ("nots", None)):
        columns = {"instruction": "ask", "output": "answer", "input": note}
        source = FilesSource(path=str(tmp_path / "rows.parquet"), columns=columns)
        data = DataSection(sources=(source,))
        if kept:
            assert ingest(data, place, (source,)).rows_kept == kept
        else:
            with pytest.raises(DataError, match=r"'nots' .*; found 'ask', 'answer', 'note'$"):
                ingest(data, place, (source,))


def test_a_query_that_brings_nothing_new_is_judged_by_what_earlier_runs_read(place, tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (ask TEXT, answer TEXT, note TEXT, n INTEGER)")
        database.execute("INSERT INTO t VALUES ('Q?', 'A.', NULL, 1)")
    monkeypatch.setenv("ROWS_URL", f"sqlite:///{tmp_path / 'a.db'}")
    source = SqlSource(
        url_variable="ROWS_URL",
        query="SELECT * FROM t WHERE n > :watermark",
        watermark_column="n",
        watermark_start=0,
        columns={"instruction": "ask", "output": "answer", "input": "note"},
    )
    for _ in range(2):
        assert ingest(DataSection(sources=(source,)), place, (source,)).rows_kept == 1
    wrong = source.model_copy(update={"slice_column": "dept"})
    with pytest.raises(DataError, match=r"'dept' .* in none of 1 record; found 'answer', 'ask', 'n', 'note'$"):
        ingest(DataSection(sources=(wrong,)), place, (wrong,))


def test_many_fields_with_long_names_stay_one_sentence(run):
    wide = [{**row, **{f"{n}" * 200: 1 for n in range(100, 200)}} for row in ROWS]
    with pytest.raises(DataError) as error:
        run(wide, slice_column="x")
    assert len(str(error.value)) < 1_000 and str(error.value).endswith("…")
    json.dumps(str(error.value))


def test_what_stands_in_place_of_a_header_is_not_shown(place, tmp_path):
    """A table without one has its first record for names, and sentences reach logs and Prefect."""
    (tmp_path / "rows.csv").write_text("john.smith@example.com,13800138000\nQ?,A.\n")
    source = FilesSource(path=str(tmp_path / "rows.csv"), columns={"instruction": "ask", "output": "answer"})
    with pytest.raises(DataError, match="'ask', 'answer'") as error:
        ingest(DataSection(sources=(source,)), place, (source,))
    assert "smith" not in str(error.value)
    assert "138" not in str(error.value)
