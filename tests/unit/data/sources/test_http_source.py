import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.contracts.source_config import HttpSource
from tasks.data.sources import http_api


class Api:
    """A real server on this machine: `answer(path, query, headers)` gives status, headers and body."""

    def __init__(self):
        self.requests = []
        self.answer = lambda path, query, headers: (404, {}, b"")
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                address = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(address.query).items()}
                api.requests.append((address.path, query))
                status, headers, body = api.answer(address.path, query, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def api():
    served = Api()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """What the client would have slept, in seconds; it sleeps not at all."""
    slept = []
    monkeypatch.setattr(http_api.time, "sleep", slept.append)
    return slept


DEEP = b'[{"b":1,"a":' + b"[" * 1_015 + b"]" * 1_015 + b"}]"
"""Of nearly as many levels as the client parses."""


def source(api, path="/rows", **settings):
    return HttpSource(url=api.url + path, **{"requests_per_second": 1_000, **settings})


def test_pages_are_counted_until_an_empty_one(api, read, rows, answers):
    pages = [rows[:2], rows[2:4], rows[4:], []]
    api.answer = lambda path, query, headers: (200, {}, {"data": {"items": pages[int(query["page"]) - 1]}})
    reading = read(source(api, "/rows?size=2", records="data.items"))
    assert reading.answers == answers
    assert [query for _, query in api.requests] == [{"size": "2", "page": str(number)} for number in (1, 2, 3, 4)]
    assert reading.rows[0]["source"].startswith("http-127.0.0.1-")


def test_the_address_of_the_next_page_is_followed_on_the_same_server(api, read, rows, answers):
    def answer(path, query, headers):
        following = {"/rows": "/more?x=1", "/more": f"{api.url}/last"}.get(path)
        part = {"/rows": rows[:2], "/more": rows[2:4], "/last": rows[4:]}[path]
        return 200, {}, {"rows": part, "links": {"next": following}}

    api.answer = answer
    assert read(source(api, records="rows", next_page="links.next")).answers == answers


def test_headers_and_questions_never_go_to_another_server(api, read, rows):
    api.answer = lambda *_: (200, {}, {"rows": rows, "next": "http://127.0.0.1:1/rows"})
    with pytest.raises(DataError, match=r"next page is on http://127\.0\.0\.1:1; expected pages of the same server"):
        read(source(api, records="rows", next_page="next"))
    api.answer = lambda *_: (302, {"Location": "http://127.0.0.1:1/rows"}, b"")
    with pytest.raises(DataError, match="which answers with status 302; expected status 200"):
        read(source(api))


def test_a_cursor_is_handed_back_until_there_is_none(api, read, rows, answers):
    def answer(path, query, headers):
        at = int(query.get("after", 0))
        return 200, {}, {"rows": rows[at : at + 2], "cursor": at + 2 if at + 2 < len(rows) else None}

    api.answer = answer
    reading = read(source(api, "/rows?kind=a", records="rows", next_page="cursor", cursor_parameter="after"))
    assert reading.answers == answers
    assert [query for _, query in api.requests] == [{"kind": "a"}, *({"kind": "a", "after": at} for at in ("2", "4"))]


def test_one_page_is_asked_for_without_a_parameter(api, read, rows, answers):
    api.answer = lambda *_: (200, {}, rows)
    assert read(source(api, page_parameter="")).answers == answers
    assert api.requests == [("/rows", {})]


def test_refusals_that_pass_are_waited_for(api, read, rows, answers, waits):
    refusals = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), (500, {}, b"")]
    api.answer = lambda *_: refusals.pop(0) if refusals else (200, {}, rows)
    assert read(source(api, page_parameter="")).answers == answers
    waits = [wait for wait in waits if wait > 0.01]
    assert waits[0] == 7
    assert 0.75 <= waits[1] <= 1.25
    assert 1.5 <= waits[2] <= 2.5


def test_a_date_says_how_long_to_wait(api, read, rows, waits):
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    refusals = [(503, {"Retry-After": later}, b"")]
    api.answer = lambda *_: refusals.pop(0) if refusals else (200, {}, rows)
    read(source(api, page_parameter=""))
    assert 25 < max(waits) <= 30


@pytest.mark.parametrize(
    ("status", "headers", "requests", "reason"),
    [
        (503, {}, 3, r"which failed 3 times \(status 503\); expected an answer"),
        (429, {"Retry-After": "86400"}, 1, r"which asks to wait 86400 s \(status 429\)"),
        (401, {}, 1, "which answers with status 401; expected status 200"),
        (404, {}, 1, "which answers with status 404; expected status 200"),
    ],
)
def test_a_refusal_that_stays_is_one_sentence(api, read, waits, status, headers, requests, reason):
    api.answer = lambda *_: (status, headers, b"")
    with pytest.raises(DataError, match=rf"^data\.sources names 'http://127\.0\.0\.1:\d+/rows', {reason}"):
        read(source(api, "/rows?token=secret", retries=2))
    assert len(api.requests) == requests


def test_a_server_that_is_not_there_is_asked_again_and_then_named(api, read, waits):
    api.server.shutdown()
    api.server.server_close()
    with pytest.raises(DataError, match=r"which failed 3 times \(ConnectError: .*\); expected an answer"):
        read(source(api, retries=2))


@pytest.mark.parametrize(
    ("body", "settings", "reason"),
    [
        (b"<html>", {}, "whose page is not JSON"),
        ({"rows": 3}, {"records": "rows"}, r"in whose pages 'rows' \(records\) is a number; expected a list"),
        ({"rows": []}, {}, "whose page is an object; expected a list of records"),
        (["x"], {}, "whose record 0 is text; expected objects"),
        ({"rows": [], "next": ["x"]}, {"records": "rows", "next_page": "next"}, "whose next is a list"),
        (
            {"rows": [], "next": "/rows"},
            {"records": "rows", "next_page": "next"},
            "whose page 2 names a next page that came before",
        ),
        ([{"a": 1}], {}, "whose page 2 is the same as the one before"),
        (DEEP, {}, r"^data\.sources has a record that is nested too deeply"),
        (DEEP, {"page_parameter": ""}, "nested too deeply to be written; expected fewer than 900 levels"),
        (DEEP, {"page_parameter": "", "watermark_field": "b", "watermark_parameter": "since"}, "nested too deeply"),
    ],
)
def test_a_page_of_another_shape_is_one_sentence(api, read, body, settings, reason):
    api.answer = lambda *_: (200, {}, body)
    with pytest.raises(DataError, match=reason):
        read(source(api, **settings))


def test_a_page_too_large_and_pages_without_end_are_refused(api, read, monkeypatch):
    monkeypatch.setattr(http_api, "MAX_PAGE_BYTES", 1_000)
    api.answer = lambda path, query, headers: (200, {}, [{"n": query["page"]}])
    with pytest.raises(DataError, match="which has more than 5 pages; expected at most max_pages"):
        read(source(api, max_pages=5))
    api.answer = lambda *_: (200, {}, [{"n": "x" * 1_000}])
    with pytest.raises(DataError, match="whose page has more than 1,000 bytes"):
        read(source(api))


def test_the_rate_is_kept(api, read, waits):
    api.answer = lambda path, query, headers: (200, {}, [{"n": query["page"]}] if int(query["page"]) < 5 else [])
    read(source(api, requests_per_second=2))
    assert len(waits) == 4
    assert 0.4 < waits[0] <= 0.5
    assert 1.5 < waits[-1] <= 2  # the clock stood still, for nobody slept


def test_with_a_watermark_a_run_asks_from_where_the_last_one_ended(api, read):
    stored = [{"instruction": name, "output": name, "meta": {"at": at}} for name, at in (("a", "01"), ("b", "02"))]

    def answer(path, query, headers):
        return 200, {}, [record for record in stored if record["meta"]["at"] >= query.get("after", "")]

    api.answer = answer
    settings = {"page_parameter": "", "watermark_field": "meta.at", "watermark_parameter": "after"}
    assert read(source(api, **settings)).answers == ["a", "b"]
    stored += [{"instruction": name, "output": name, "meta": {"at": at}} for name, at in (("late", "02"), ("c", "03"))]
    assert read(source(api, **settings)).answers == ["a", "b", "late", "c"]
    assert read(source(api, **settings)).answers == ["a", "b", "late", "c"]
    assert [query for _, query in api.requests] == [{}, {"after": "02"}, {"after": "03"}]


def test_an_interface_that_fails_on_the_way_leaves_what_was_read_before(api, read, rows, waits):
    settings = {"watermark_field": "output"}
    api.answer = lambda path, query, headers: (200, {}, rows[:2] if query["page"] == "1" else [])
    read(source(api, **settings))
    api.answer = lambda path, query, headers: (200, {}, rows[2:]) if query["page"] == "1" else (404, {}, b"")
    with pytest.raises(DataError, match="404"):
        read(source(api, **settings))
    api.answer = lambda path, query, headers: (200, {}, rows if query["page"] == "1" else [])
    assert read(source(api, **settings)).answers == [row["output"] for row in rows]


def test_secrets_come_from_the_environment(api, read, rows, monkeypatch):
    seen = []
    api.answer = lambda path, query, headers: seen.append(headers["Authorization"]) or (200, {}, rows)
    settings = {"page_parameter": "", "header_variables": {"Authorization": "API_TOKEN"}}
    with pytest.raises(EnvironmentProblem, match="the header Authorization from API_TOKEN, which is not set"):
        read(source(api, **settings))
    monkeypatch.setenv("API_TOKEN", "Bearer secret")
    read(source(api, **settings))
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://host/x"},
        {"url": "https://me:secret@host/x"},
        {"url": "http://h/x", "header_variables": {"A": "Bearer secret"}},
        {"url": "http://h/x", "header_variables": {"A\nB": "TOKEN"}},
        {"url": "http://h/x", "cursor_parameter": "after"},
    ],
)
def test_settings_that_cannot_work_are_config_errors(settings):
    with pytest.raises(ValidationError):
        HttpSource(**settings)


def test_a_secret_that_cannot_be_sent_is_not_shown(api, read, monkeypatch):
    monkeypatch.setenv("TOKEN", "Bearer sesame\n")
    with pytest.raises(DataError, match=r"LocalProtocolError: Illegal header value <\d+ characters>") as caught:
        read(source(api, header_variables={"Authorization": "TOKEN"}, retries=0))
    assert "sesame" not in "".join(traceback.format_exception(caught.value))
