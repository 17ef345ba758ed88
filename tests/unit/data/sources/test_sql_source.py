import sqlite3
import tracemalloc
from urllib.parse import quote_plus

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.source_config import SqlSource
from tasks.data.sources import open_source
from tasks.data.sources.sql import _database_of

ALL = "SELECT ask, answer FROM logs"
NEW = "SELECT id, ask AS instruction, answer AS output FROM logs WHERE id >= :watermark"


@pytest.fixture
def database(tmp_path, monkeypatch):
    connection = sqlite3.connect(tmp_path / "logs.db", isolation_level=None)
    connection.execute("CREATE TABLE logs (id INTEGER, ask TEXT, answer TEXT)")
    monkeypatch.setenv("LOGS_URL", f"sqlite:///{tmp_path}/logs.db")
    yield connection
    connection.close()


def add(database, *rows):
    database.execute("BEGIN")
    database.executemany("INSERT INTO logs VALUES (?, ?, ?)", rows)
    database.execute("COMMIT")


def sql(query=ALL, **settings):
    return SqlSource(url_variable="LOGS_URL", query=query, **settings)


def test_the_rows_of_a_query_are_mapped_to_rows(database, read):
    add(database, (1, "Why?", "Because."), (2, "How?", None))
    reading = read(sql(columns={"instruction": "ask", "output": "answer"}, slice="logs"))
    assert reading.answers == ["Because."]
    assert reading.reasons == ["not a usable conversation"]
    assert reading.rows[0]["slice"] == "logs"
    assert reading.rows[0]["source"].startswith("sql-")


def test_without_a_watermark_each_run_reads_everything(database, read):
    source = sql(columns={"instruction": "ask", "output": "answer"})
    add(database, (1, "Why?", "Because."))
    first = read(source)
    add(database, (2, "How?", "So."))
    second = read(source)
    database.execute("DELETE FROM logs WHERE id = 2")
    third = read(source)
    assert [each.answers for each in (first, second, third)] == [["Because."], ["Because.", "So."], ["Because."]]
    assert first.opened.digest == third.opened.digest != second.opened.digest


def test_with_a_watermark_a_run_asks_only_for_what_is_new(database, read, monkeypatch):
    source = sql(NEW, watermark_column="id", watermark_start=0)
    add(database, (1, "a", "a"), (2, "b", "b"))
    assert read(source).answers == ["a", "b"]
    database.execute("DELETE FROM logs WHERE id = 1")
    add(database, (2, "late", "late"), (3, "c", "c"))
    second = read(source)
    assert second.answers == ["a", "b", "late", "c"]
    assert read(source).opened.digest == second.opened.digest


def test_the_digest_does_not_know_in_how_many_runs_the_rows_came_nor_in_which_order(database, read, tmp_path):
    source = sql(NEW, watermark_column="id", watermark_start=0)
    add(database, (1, "a", "a"))
    read(source)
    add(database, (2, "b", "b"), (3, "c", "c"))
    grown = read(source).opened
    for number in range(2):
        at_once = read(source, cache=tmp_path / f"cache {number}").opened
        assert at_once.digest == grown.digest
        database.execute("DELETE FROM logs")
        add(database, (3, "c", "c"), (2, "b", "b"), (1, "a", "a"))


def test_another_query_for_the_same_records_is_another_source(database, read):
    """The rows name the query."""
    add(database, (1, "a", "a"))
    assert read(sql("SELECT ask AS instruction, answer AS output FROM logs")).opened.digest != (
        read(sql("SELECT answer AS output, ask AS instruction FROM logs")).opened.digest
    )


def test_another_database_under_the_same_variable_is_another_source(database, read, tmp_path, monkeypatch):
    source = sql(NEW, watermark_column="id", watermark_start=0)
    add(database, (1, "staging", "staging"), (9, "staging", "staging"))
    staging = read(source)
    other = sqlite3.connect(tmp_path / "prod.db", isolation_level=None)
    other.execute("CREATE TABLE logs (id INTEGER, ask TEXT, answer TEXT)")
    add(other, (1, "prod", "prod"), (2, "prod", "prod"))
    monkeypatch.setenv("LOGS_URL", f"sqlite:///{tmp_path}/prod.db")
    assert read(source).answers == ["prod", "prod"]
    monkeypatch.setenv("LOGS_URL", f"sqlite:///{tmp_path}/logs.db")
    assert read(source).opened.digest == staging.opened.digest


@pytest.mark.parametrize(
    ("address", "is_same"),
    [
        ("postgresql+psycopg://me:new@host:5432/logs?sslmode=require", True),
        ("postgresql+psycopg2://you:old@host:5432/logs?sslmode=require&PassWord=x&user=you", True),
        ("postgresql+psycopg://me:old@other:5432/logs?sslmode=require", False),
        ("postgresql+psycopg://me:old@host:5433/logs?sslmode=require", False),
        ("postgresql+psycopg://me:old@host:5432/prod?sslmode=require", False),
        ("postgresql+psycopg://me:old@host:5432/logs?sslmode=require&options=-csearch_path%3Dprod", False),
        ("mysql://me:old@host:5432/logs?sslmode=require", False),
    ],
)
def test_which_database_an_address_names_does_not_hang_on_who_asks(address, is_same):
    before = _database_of(make_url("postgresql+psycopg://me:old@host:5432/logs?sslmode=require"))
    assert (_database_of(make_url(address)) == before) is is_same


def test_of_an_odbc_address_the_password_does_not_count_and_the_server_does():
    def database(text):
        return _database_of(make_url(f"mssql+pyodbc:///?odbc_connect={quote_plus(text)}"))

    before = database("DRIVER={ODBC 18};SERVER=a;UID=me;PWD={o;}}ld};DATABASE=logs")
    assert database("DRIVER={ODBC 18};SERVER=a;uid=you;pwd=new;DATABASE=logs") == before
    assert database("DRIVER={ODBC 18};SERVER=b;UID=me;PWD={o;}}ld};DATABASE=logs") != before


def test_a_large_result_is_streamed(database, read, tmp_path):
    add(database, *((n, "ask", "answer " * 1_000) for n in range(3_000)))
    source = sql(NEW, watermark_column="id", watermark_start=0, batch_rows=50)
    open_source(source.model_copy(update={"watermark_start": 3_000}), 0, "data.sources", tmp_path)  # imports
    tracemalloc.start()
    try:
        open_source(source, 0, "data.sources", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 6e6  # of 21 MB
    finally:
        tracemalloc.stop()


def test_a_query_cannot_change_the_database(database, read):
    add(database, (1, "a", "a"))
    source = sql().model_copy(update={"query": "DELETE FROM logs RETURNING ask AS instruction, answer AS output"})
    read(source)
    assert database.execute("SELECT count(*) FROM logs").fetchone() == (1,)


@pytest.mark.parametrize(
    ("source", "error", "reason"),
    [
        (sql("SELECT missing FROM logs"), DataError, r"which fails \(no such column: missing\); expected rows"),
        (
            sql("SELECT ask FROM logs WHERE id >= :watermark", watermark_column="id", watermark_start=0),
            DataError,
            "watermark_column 'id', which its query does not return; expected one of 'ask'",
        ),
        (
            sql("SELECT NULL AS id WHERE 1 > :watermark", watermark_column="id", watermark_start=0),
            DataError,
            "whose watermark is null",
        ),
        (
            SqlSource(url_variable="NOT_SET_ANYWHERE", query=ALL),
            EnvironmentProblem,
            "NOT_SET_ANYWHERE, which is not set",
        ),
    ],
)
def test_what_goes_wrong_is_one_sentence(database, read, source, error, reason):
    add(database, (1, "a", "a"))
    with pytest.raises(error, match=rf"^data\.sources .*{reason}"):
        read(source)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://me:secret@host:secret/x",
        "postgresql+psycopg9://me:secret@host/x",
        "mysql+pymysql://me:secret@host/x",
    ],
)
def test_the_address_with_its_password_is_never_shown(monkeypatch, read, url):
    monkeypatch.setenv("LOGS_URL", url)
    with pytest.raises((DataError, EnvironmentProblem)) as caught:
        read(sql())
    assert "secret" not in str(caught.value)
    assert "LOGS_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"query": "DELETE FROM logs"}, "expected a SELECT"),
        ({"watermark_column": "id"}, "both watermark_column and :watermark"),
        ({"query": NEW}, "both watermark_column and :watermark"),
        ({"query": "SELECT x::watermark FROM t", "watermark_column": "id"}, "both watermark_column and :watermark"),
        ({"url_variable": "sqlite:///x.db"}, "the name of an environment variable"),
    ],
)
def test_settings_that_cannot_work_are_config_errors(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        SqlSource(**{"url_variable": "LOGS_URL", "query": ALL, **settings})
