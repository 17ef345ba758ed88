"""Sentences reach terminals, logs and Prefect: they name columns and show no values."""

import sqlite3
import traceback

import pytest
import sqlalchemy

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import SqlSource
from tasks.data.ingest import ingest
from tasks.data.shown import shown_name, without_values
from tasks.data.sources.sql import _reason

MAIL, PHONE = "john.smith@example.com", "138-0013-8000"


def sentence_of(data, place):
    with pytest.raises(DataError) as caught:
        ingest(data, place, data.sources)
    return str(caught.value)


def test_the_first_line_of_a_table_without_a_header_is_not_shown(write_lines, data_of, place):
    lines = [f"{MAIL},{PHONE},Where is my card? I lost it in Leeds.", "a,b,c"]
    source = write_lines(*[line.encode() for line in lines], name="people.csv")
    said = sentence_of(data_of(source, max_malformed_share=0), place)
    assert "people.csv:2: not a usable conversation" in said
    assert "found a name of 22 characters, a name of 13 characters, a name of 37 characters" in said
    assert "expected the fields messages, conversations, instruction and output" in said


def test_a_header_that_says_a_value_twice_is_not_shown(write_lines, data_of, place):
    source = write_lines(f"{MAIL},{MAIL},city,city".encode(), b"a,b,c,d", name="people.csv")
    said = sentence_of(data_of(source, max_malformed_share=0), place)
    assert "the first line names 'city', a name of 22 characters twice" in said


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (
            {"messages": [{"role": MAIL, "content": "x"}]},
            "has the role a text of 22 characters, expected one of system",
        ),
        ({"messages": [{"role": 13800138000, "content": "x"}]}, "has the role a number, expected"),
        ({"conversations": [{"from": PHONE, "value": "x"}]}, "is from a text of 13 characters, expected one of human"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "is from 'tool', expected one of human"),
        ({"question": "x", "answer text": "y", MAIL: "z"}, "found 'question', 'answer text', a name of 22 characters"),
    ],
)
def test_roles_and_fields_are_shown_only_if_they_read_as_names(write_lines, data_of, place, record, shown):
    said = sentence_of(data_of(write_lines(record), max_malformed_share=0), place)
    assert shown in said
    assert MAIL not in said and PHONE not in said and "13800138000" not in said


@pytest.mark.parametrize("name", ["ask", "First Name", "answer.text", "患者姓名", "Umsatz 2024", "问题/答案", "a" * 40])
def test_what_reads_as_a_name_is_shown(name):
    assert shown_name(name) == repr(name)


@pytest.mark.parametrize("text", [MAIL, PHONE, "a" * 41, "EMP 12345", "a\nb", "", "so it is one two three", "Who? Me"])
def test_what_does_not_read_as_a_name_is_not_shown(text):
    assert shown_name(text) == f"a name of {len(text)} characters"


@pytest.mark.parametrize(
    ("message", "names", "shown"),
    [
        ('column "missing" does not exist', True, 'column "missing" does not exist'),
        (
            'invalid input syntax for type integer: "John Smith"',
            False,
            "invalid input syntax for type integer: <10 characters>",
        ),
        (f"bad value '{MAIL}' at 5", True, "bad value <22 characters> at 5"),
        (f"cannot mail {MAIL}", True, "cannot mail <…>"),
        ("can't read 'O'Brien', b'sesame'", False, "can't read <7 characters>, <6 characters>"),
        ("key (13800138000)\nis there", True, "key <…> is there"),
        ("x" * 400, True, "x" * 297 + "..."),
    ],
)
def test_what_a_library_says_is_shown_without_values(message, names, shown):
    assert without_values(message, names) == shown


def test_a_value_in_an_error_of_the_database_is_not_shown(tmp_path, monkeypatch, read):
    connection = sqlite3.connect(tmp_path / "logs.db")
    connection.execute("CREATE TABLE logs (ask TEXT)")
    connection.execute("INSERT INTO logs VALUES (?)", (MAIL,))
    connection.commit()
    connection.close()
    monkeypatch.setenv("LOGS_URL", f"sqlite:///{tmp_path}/logs.db")
    with pytest.raises(DataError, match=r"which fails \(.*JSON path.*\); expected rows") as caught:
        read(SqlSource(url_variable="LOGS_URL", query="SELECT json_extract('{}', ask) FROM logs"))
    assert MAIL not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("kind", "arguments", "shown"),
    [
        (
            "ProgrammingError",
            ('column "missing" does not exist\nLINE 1: SELECT missing',),
            'column "missing" does not exist',
        ),
        (
            "OperationalError",
            (1054, "Unknown column 'missing' in 'field list'"),
            "1054 Unknown column 'missing' in 'field list'",
        ),
        ("DataError", ("22018", "Conversion failed when converting the varchar value 'Smith' to int"), "Smith"),
    ],
)
def test_of_errors_of_drivers_names_are_shown_and_values_are_not(kind, arguments, shown):
    said = _reason(getattr(sqlalchemy.exc, kind)("SELECT 1", {}, Exception(*arguments)))
    assert said.endswith(shown) if kind != "DataError" else said.endswith("varchar value <5 characters> to int")
