"""What is sent to MLflow, in which order, and what is not sent a second time."""

import json
import os
import threading
import time

import pytest

from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError, RolloutError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.registry import outage, sender
from tasks.registry.connection import connect
from tasks.registry.delivery import Delivery
from tasks.registry.journal import open_journal
from tasks.registry.leftovers import send_leftovers
from tasks.registry.outage import is_outage, patiently, reading
from tasks.registry.sender import Sender
from tasks.registry.tracking import tracked_run

REGISTRY = RegistrySection()


def failure(code, message="asked for"):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException(message, error_code=ErrorCode.Value(code))


class Store:
    """Takes points and tags, and keeps identical points twice, as some stores of MLflow do."""

    def __init__(self):
        self.points, self.order, self.failing, self.taken_before_failing = [], [], None, False
        self.refuses = set()

    def log_batch(self, _run_id, metrics=(), params=(), tags=()):
        if any(metric.key in self.refuses for metric in metrics):
            raise failure("INVALID_PARAMETER_VALUE")
        if self.failing and not self.taken_before_failing:
            raise self.failing
        self.points += [(metric.key, metric.step) for metric in metrics]
        self.order += [metric.key for metric in metrics] + [tag.key for tag in tags]
        if self.failing:
            raise self.failing

    def get_metric_history(self, _run_id, key):
        from mlflow.entities import Metric

        return [Metric(name, 1.0, 1, step) for name, step in self.points if name == key]


def point(step, key="loss"):
    return {"kind": "points", "metrics": [[key, 1.0, 1, step]]}


def tag(key):
    return {"kind": "facts", "params": {}, "tags": {key: "x"}}


@pytest.fixture
def place(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def journal(place):
    return open_journal("run", REGISTRY, place)


def test_points_that_were_taken_although_the_answer_was_lost_are_not_sent_again(journal):
    store = Store()
    delivery = Delivery(store, journal)
    store.failing, store.taken_before_failing = failure("INTERNAL_ERROR"), True
    for step in (1, 2):
        journal.add(point(step))
    with pytest.raises(Exception, match="asked for"):
        delivery.send_next()
    store.failing = None
    journal.add(point(3))
    while len(journal):
        delivery.send_next()
    assert store.points == [("loss", 1), ("loss", 2), ("loss", 3)]


def test_points_that_a_killed_process_may_have_sent_are_looked_up_first(journal, place):
    store = Store()
    for step in (1, 2, 3):
        journal.add(point(step))
    store.points = [("loss", 1), ("loss", 2)]
    journal.close()
    again = open_journal("run", REGISTRY, place)
    Delivery(store, again).send_next()
    assert store.points == [("loss", 1), ("loss", 2), ("loss", 3)] and not len(again)


def test_points_that_were_never_tried_are_not_looked_up(journal):
    store = Store()
    store.get_metric_history = None
    journal.add(point(1))
    Delivery(store, journal).send_next()
    assert store.points == [("loss", 1)]


def test_points_go_in_batches_of_a_thousand_and_everything_in_order(journal):
    store, sizes = Store(), []
    taken = store.log_batch
    store.log_batch = lambda *a, metrics=(), **k: (sizes.append(len(metrics)), taken(*a, metrics=metrics, **k))
    for step in range(1, 1_501):
        journal.add(point(step))
    journal.add(tag("after"))
    journal.add(point(1_501))
    delivery = Delivery(store, journal)
    while len(journal):
        delivery.send_next()
    assert sizes == [1_000, 500, 0, 1]
    assert store.order == ["loss"] * 1_500 + ["after", "loss"]


def test_what_mlflow_refuses_goes_alone_and_is_not_kept(journal, place):
    store = Store()
    store.refuses = {"bad"}
    for entry in (point(1), point(1, "bad"), point(2), tag("after")):
        journal.add(entry)
    delivery = Delivery(store, journal)
    while len(journal):
        delivery.send_next()
    assert store.order == ["loss", "loss", "after"]
    assert delivery.refused == ["points bad (asked for)"]
    journal.close()
    assert list(place.unsent.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("INTERNAL_ERROR", True),
        ("TEMPORARILY_UNAVAILABLE", True),  # what MLflow makes of a database that is locked
        ("REQUEST_LIMIT_EXCEEDED", True),
        ("INVALID_PARAMETER_VALUE", False),
        ("RESOURCE_DOES_NOT_EXIST", False),
    ],
)
def test_what_counts_as_an_outage(code, expected):
    assert is_outage(failure(code)) is expected


def test_a_connection_that_fails_is_an_outage_and_a_mistake_of_ours_is_none():
    assert is_outage(ConnectionRefusedError())
    assert not is_outage(ValueError())


def caused(error, cause):
    error.__cause__ = cause
    return error


def test_an_error_of_ours_is_an_outage_if_mlflow_caused_it_and_not_if_triton_did():
    told = caused(RegistryError("no aliases"), failure("INTERNAL_ERROR"))
    assert is_outage(caused(RolloutError("undone"), told))
    assert not is_outage(caused(RolloutError("undone"), ConnectionRefusedError()))
    assert not is_outage(RegistryError("no such version"))


def test_what_needs_mlflow_waits_for_it_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(outage, "_POLL_SECONDS", 0.01)
    answers = iter([failure("INTERNAL_ERROR"), failure("INTERNAL_ERROR"), "done"])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(ask, "registering", REGISTRY) == "done"
    assert caplog.text.count("MLflow does not answer; registering waits for it") == 1


def test_one_answer_that_failed_is_asked_for_again_where_nothing_is_changed_and_a_refusal_is_not(monkeypatch):
    monkeypatch.setattr(outage, "_READ_PAUSE_SECONDS", 0.0)
    asked = []

    def ask(*answers):
        asked.append(1)
        if len(asked) <= len(answers):
            raise answers[len(asked) - 1]
        return "read"

    assert reading(lambda: ask(failure("INTERNAL_ERROR"), failure("INTERNAL_ERROR"))) == "read"
    for code, times in (("INTERNAL_ERROR", 3), ("INVALID_PARAMETER_VALUE", 1)):
        asked.clear()
        with pytest.raises(Exception, match="asked for"):
            reading(lambda code=code: ask(*[failure(code)] * 9))
        assert len(asked) == times


def test_the_wait_ends_with_what_to_do_and_a_refusal_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(outage, "_POLL_SECONDS", 0.01)
    asked = []

    def ask(error):
        asked.append(error)
        raise error

    short, began = RegistrySection(wait_seconds=0.05), time.monotonic()
    with pytest.raises(RegistryError, match=r"registry\.wait_seconds is 0\.05.*run the same command again.*without"):
        patiently(lambda: ask(failure("INTERNAL_ERROR")), "registering", short)
    assert len(asked) > 2 and time.monotonic() - began < 20
    asked.clear()
    with pytest.raises(Exception, match="asked for"):
        patiently(lambda: ask(failure("INVALID_PARAMETER_VALUE")), "registering", REGISTRY)
    assert len(asked) == 1


def test_whoever_reads_the_training_never_waits_for_mlflow(journal, place, monkeypatch, caplog):
    monkeypatch.setattr(sender, "_FLUSH_SECONDS", 0.01)
    asked, answer = threading.Event(), threading.Event()

    def hang(*_, **__):
        asked.set()
        answer.wait(30)

    store = Store()
    store.log_batch = hang
    sends = Sender(store, journal)
    sends.add(point(1))
    assert asked.wait(10)
    began = time.monotonic()
    for step in range(2, 1_002):
        sends.add(point(step), urgent=False)
    assert time.monotonic() - began < 5
    assert not sends.flush(0.2), "it hangs, and a run ends all the same"
    assert (place.unsent / "run.jsonl").read_text().count("points") == 1_001
    answer.set()
    assert sends.flush(10)
    sends.close()
    assert list(place.unsent.iterdir()) == []


def test_an_outage_is_said_once_and_its_end_and_everything_arrives(journal, monkeypatch, caplog):
    monkeypatch.setattr(sender, "_RETRY_SECONDS", 0.01)
    store = Store()
    store.failing = failure("INTERNAL_ERROR")
    sends = Sender(store, journal)
    with caplog.at_level("INFO"):
        for step in (1, 2, 3):
            sends.add(point(step))
        assert not sends.flush(5)
        store.failing = None
        assert sends.flush(5)
        sends.close()  # the thread has ended, and said what it has to say
    assert caplog.text.count("MLflow does not take what run run has to say") == 1
    assert caplog.text.count("MLflow answers again") == 1
    assert store.points == [("loss", 1), ("loss", 2), ("loss", 3)]


def test_the_table_of_answers_is_not_doubled_by_sending_it_again(tmp_path, empty_registry):
    home = empty_registry(Home(tmp_path))
    path = tmp_path / "predictions.jsonl"
    write_jsonl(path, [{"prompt": "a", "base": "1"}, {"prompt": "b", "base": "2"}])
    with tracked_run(RetrainConfig(), home, "test", {}) as run:
        table = {"kind": "table", "path": str(path), "columns": ["prompt", "base"], "name": "predictions.json"}
        run._sender.add(table)
        run._sender.add(table)
        run.flush_training()
        from mlflow.artifacts import load_dict

        assert load_dict(f"runs:/{run.run_id}/predictions.json")["data"] == [["a", "1"], ["b", "2"]]
        assert json.loads(run.client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])[0]["type"] == "table"


@pytest.fixture
def left(tmp_path, empty_registry):
    """A home whose last run was killed: its curve has not arrived, and nobody has ended it."""
    home = empty_registry(Home(tmp_path))
    client = connect(REGISTRY, home)
    run_id = client.create_run(client.create_experiment("e", (tmp_path / "artifacts").as_uri())).info.run_id
    journal = open_journal(run_id, REGISTRY, home)
    for step in (1, 2):
        journal.add(point(step))
    journal.close()
    return home, client, run_id


def test_the_next_one_sends_what_a_killed_run_left_and_ends_it(left):
    home, client, run_id = left
    assert send_leftovers(client, REGISTRY, home) == 0
    assert [each.step for each in client.get_metric_history(run_id, "loss")] == [1, 2]
    assert client.get_run(run_id).info.status == "KILLED"
    assert list(home.unsent.iterdir()) == []


def test_what_another_registry_shall_have_waits_for_it(left):
    home, client, run_id = left
    elsewhere = RegistrySection(tracking_uri="http://127.0.0.1:1")
    assert send_leftovers(client, elsewhere, home) == 1
    assert client.get_metric_history(run_id, "loss") == []


def test_what_mlflow_does_not_take_for_thirty_days_goes(left, monkeypatch, caplog):
    home, client, run_id = left
    monkeypatch.setattr(client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(failure("INTERNAL_ERROR")))
    assert send_leftovers(client, REGISTRY, home) == 1
    old = time.time() - 31 * 24 * 3600
    os.utime(home.unsent / f"{run_id}.jsonl", (old, old))
    assert send_leftovers(client, REGISTRY, home) == 0
    assert "entries of run" in caplog.text and list(home.unsent.iterdir()) == []


def test_a_run_that_is_gone_takes_what_it_had_to_say_with_it_and_that_is_one_line(left, caplog):
    home, client, run_id = left
    client.delete_run(run_id)
    assert send_leftovers(client, REGISTRY, home) == 0
    assert caplog.messages == [f"Run {run_id} is not in MLflow any more, nor is what it had to say"]
    assert list(home.unsent.iterdir()) == []


def test_limits_of_requests_are_set_when_mlflow_is_asked_and_the_users_own_stay(tmp_path, empty_registry, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    connect(REGISTRY, empty_registry(Home(tmp_path)))
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (7, 0)
