import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.contracts.artifacts import RegisteredVersion
from tasks.monitoring.drift import DriftVerdict
from tasks.monitoring.requests import Request, RequestWindow
from tasks.monitoring.steps import emit_drift_event, verdict_markdown

DRIFT = DriftVerdict(
    True, "80 requests differ: AUC 0.91", 0.91, 0.001, 80, 300, ("<img src=x>", "[a](http://b)", "`c`")
)


@pytest.fixture
def prefect_server():
    """A server that takes what is posted to it, or refuses it with the status that is set."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(server.status)
            self.end_headers()

        def do_GET(self):
            self.send_response(404)  # what a server says that asks for no CSRF token
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    posted = []
    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.status, server.posted = 204, posted
    thread = Thread(target=server.serve_forever)
    thread.start()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
        yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_event_names_the_model_and_carries_what_the_trigger_needs(prefect_server):
    assert emit_drift_event(DRIFT, "assistant", 3)
    ((path, [event]),) = prefect_server.posted
    assert path == "/api/events"
    assert event["event"] == "llm-retrain.drift.detected"
    assert event["resource"] == {
        "prefect.resource.id": "llm-retrain.model.assistant",
        "prefect.resource.name": "assistant",
    }
    assert event["payload"] == {
        "auc": 0.91,
        "p_value": 0.001,
        "requests": 80,
        "reason": "80 requests differ: AUC 0.91",
        "version": 3,
    }


def test_an_event_that_the_server_refuses_is_not_called_sent(prefect_server, caplog):
    prefect_server.status = 400
    assert not emit_drift_event(DRIFT, "assistant", 3)
    assert "judged again" in caplog.text


def test_an_event_that_reaches_no_server_is_not_called_sent(no_prefect_server, caplog):
    assert not emit_drift_event(DRIFT, "assistant", 3)
    assert "judged again" in caplog.text


def test_without_a_server_that_stays_nobody_would_hear_the_event(caplog):
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert not emit_drift_event(DRIFT, "assistant", 3)
    assert "llm-retrain up" in caplog.text


def test_the_artifact_shows_the_figures_and_escapes_words_from_requests():
    paths = dict.fromkeys(("servable_path", "dataset_path", "predictions_path", "report_path"), Path("store"))
    champion = RegisteredVersion(
        name="assistant",
        version=3,
        run_id="r",
        verdict="promote",
        servable_digest="d",
        dataset_digest="d",
        tags={},
        **paths,
    )
    window = RequestWindow(Path("asked_now.jsonl"), (Request("a", 1.0), Request("a", 2.0)), 4)
    markdown = verdict_markdown(DRIFT, champion, window)
    assert markdown.startswith("# Drift\n\n80 requests differ: AUC 0.91\n")
    assert "- Champion: assistant version 3\n" in markdown
    assert "- Requests: 2 read, 80 distinct, from asked\\_now.jsonl\n" in markdown
    assert "- Lines without a readable request: 4\n" in markdown
    assert "&lt;img src=x&gt;, \\[a\\]\\(http://b\\), \\`c\\`" in markdown
    assert "<" not in markdown
