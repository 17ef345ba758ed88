"""Progress in Prefect is shown if it can be, and what is shown never ends the work."""

import logging
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from tasks.contracts import progress
from tasks.contracts.progress import stage_progress

FLOW_RUN = SimpleNamespace(flow=SimpleNamespace(isasync=False), flow_run=None)


@pytest.fixture
def in_a_flow(monkeypatch):
    """Every report goes to the artifact, as in a flow run that has just been given one."""
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: FLOW_RUN)
    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr(progress, "_ARTIFACT_SECONDS", 0.0)


def work(steps=3):
    done = []
    with stage_progress("training", steps, "training-progress") as report:
        for step in range(1, steps + 1):
            report(step, f"loss {step}")
            done.append(step)
    return done


def test_the_artifact_gets_every_step_and_ends_at_100_percent(in_a_flow, monkeypatch):
    seen = []
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", lambda **update: seen.append(update["progress"]))
    work(4)
    assert seen == [25, 50, 75, 100, 100]


def test_work_goes_on_with_one_warning_when_the_server_is_away(in_a_flow, no_prefect_server, caplog):
    assert work() == [1, 2, 3]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith("the progress of training cannot be shown in Prefect (ConnectError: ")


def test_work_goes_on_when_the_artifact_cannot_be_made(no_prefect_server, monkeypatch, caplog):
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: FLOW_RUN)
    assert work() == [1, 2, 3]
    assert [record.levelno for record in caplog.records if record.name.startswith("llm_retrain")] == [logging.WARNING]


def test_a_server_that_was_away_is_asked_again_after_a_while(in_a_flow, monkeypatch, caplog):
    seen, now = [], [100.0]

    def update(**update):
        seen.append(update["progress"])
        if len(seen) == 1:
            raise httpx.ReadTimeout("locked")
        now[0] += 1

    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", update)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with stage_progress("training", 4, "training-progress") as report:
        report(1, "")
        report(2, "")
        now[0] += progress._PAUSE_SECONDS
        report(3, "")
    assert seen == [25, 75, 100]
    assert len(caplog.records) == 1


def test_an_artifact_that_was_deleted_does_not_end_the_work(in_a_flow, monkeypatch, caplog):
    def gone(**_):
        raise ObjectNotFound(LookupError("no such artifact"))

    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", gone)
    assert work() == [1, 2, 3]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, AssertionError])
def test_what_is_no_failure_of_the_server_is_not_swallowed(in_a_flow, monkeypatch, stop):
    def raise_it(**_):
        raise stop

    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", raise_it)
    with pytest.raises(stop):
        work()
