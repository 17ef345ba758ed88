from pathlib import Path

import pytest

from tasks.contracts.artifacts import RegisteredVersion
from tasks.monitoring.drift import DriftVerdict
from tasks.monitoring.requests import Request, RequestWindow
from tasks.monitoring.steps import emit_drift_event, verdict_markdown

DRIFT = DriftVerdict(
    True, "80 requests differ: AUC 0.91", 0.91, 0.001, 80, 300, ("<img src=x>", "[a](http://b)", "`c`")
)


@pytest.fixture
def sent_events(monkeypatch):
    """Prefect's own in-memory events client in the place of the one that calls a server."""
    from prefect.events.clients import AssertingEventsClient
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def drained():
        worker.drain()
        return [event for client in AssertingEventsClient.all for event in client.events]

    AssertingEventsClient.reset()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # else the worker starts a server
        worker = EventsWorker.instance(AssertingEventsClient)
        monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)
        yield drained
        worker.drain()
    AssertingEventsClient.reset()


def test_the_event_names_the_model_and_carries_what_the_trigger_needs(sent_events):
    assert emit_drift_event(DRIFT, "assistant", 3)
    (event,) = sent_events()
    assert event.event == "llm-retrain.drift.detected"
    assert event.resource.id == "llm-retrain.model.assistant"
    assert event.resource.name == "assistant"
    assert event.payload == {
        "auc": 0.91,
        "p_value": 0.001,
        "requests": 80,
        "reason": "80 requests differ: AUC 0.91",
        "version": 3,
    }


def test_an_event_that_prefect_cannot_take_is_reported(monkeypatch, caplog):
    monkeypatch.setattr("prefect.events.utilities.should_emit_events", lambda: False)
    assert not emit_drift_event(DRIFT, "assistant", 3)
    assert "judged again" in caplog.text


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
