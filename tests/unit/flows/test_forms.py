"""The form on a version that waits: closed by whatever else decides, asked for again where it was lost."""

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from prefect.exceptions import PrefectException

from flows import approval_form, promote, retrain
from flows.cli import cli
from tasks.contracts.artifacts import ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home

REQUEST = SimpleNamespace(version=3, key="a" * 64)
SERVED = ServedVersion(5, "assistant-v5", True, "asked")


@pytest.mark.parametrize("error", [httpx.ConnectError("no answer"), PrefectException("locked")])
def test_a_form_that_cannot_be_closed_is_a_warning_since_what_was_decided_is_done(error, monkeypatch, caplog):
    def refuse(*_):
        raise error

    monkeypatch.setattr(approval_form, "_close", refuse)
    approval_form.close_form(REQUEST, "version 5 was promoted")
    assert f"The form on version 3 may still be open in Prefect: {error}" in caplog.messages


@pytest.mark.parametrize("error", [httpx.ReadTimeout("timed out"), PrefectException("locked")])
def test_a_version_waits_also_where_prefect_does_not_ask(error, monkeypatch, caplog):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(approval_form, "run_deployment", refuse)
    assert approval_form.ask_in_prefect(REQUEST, RetrainConfig()) == ""
    said = f"Prefect did not bring version 3 before anybody; up and the next run ask again: {error}"
    assert said in caplog.messages


@pytest.mark.parametrize("error", [RegistryError("version 3 is not in MLflow"), MlflowException("HTTP 500")])
def test_a_page_that_cannot_be_written_on_is_a_warning_and_the_form_is_closed_all_the_same(error, monkeypatch, caplog):
    def refuse(*_):
        raise error

    closed = []
    monkeypatch.setattr(approval_form, "find_version", lambda *_: "version")
    monkeypatch.setattr(approval_form, "note_approval", refuse)
    monkeypatch.setattr(approval_form, "_close", lambda *told: closed.append(told))
    approval_form.say_decided(REQUEST, "refused by Ada: no", RetrainConfig().registry, Home(Path("/none")))
    assert f"The page of version 3 in MLflow does not say 'refused by Ada: no': {error}" in caplog.messages
    assert closed == [(REQUEST, "refused by Ada: no")]


def test_every_run_that_still_asks_is_ended_but_for_the_one_that_was_answered(monkeypatch):
    """A run that cancelled itself would not do what it was told to."""
    ended = []

    class Client:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read_flow_runs(self, flow_run_filter):
            assert flow_run_filter.tags.all_ == ["request-aaaaaaaaaaaa"]
            state = {True: SimpleNamespace(is_final=lambda: True), False: SimpleNamespace(is_final=lambda: False)}
            runs = {"asks": state[False], "this one": state[False], "over": state[True], "no state": None}
            return [SimpleNamespace(id=name, state=each) for name, each in runs.items()]

        def set_flow_run_state(self, run_id, state, force):
            ended.append((run_id, state.name, state.message, force))

    monkeypatch.setattr(approval_form, "get_client", lambda **_: Client())
    monkeypatch.setattr(approval_form, "flow_run", SimpleNamespace(id="this one"))
    approval_form.close_form(REQUEST, "approved by Ada")
    assert ended == [("asks", "Decided", "approved by Ada", True)]


def test_what_is_no_answer_of_the_server_is_not_passed_over(monkeypatch):
    monkeypatch.setattr(approval_form, "_close", lambda *_: 1 / 0)
    monkeypatch.setattr(approval_form, "run_deployment", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        approval_form.close_form(REQUEST, "why")
    with pytest.raises(ZeroDivisionError):
        approval_form.ask_in_prefect(REQUEST, RetrainConfig())


@pytest.fixture
def by_hand(monkeypatch, tmp_path):
    """Promotion and rollback by hand, with version 3 waiting; what was noted and closed."""
    said = []
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(tmp_path))
    parts = {
        "record_log_lines": lambda: None,
        "find_version": lambda _registry, number, _home: SimpleNamespace(version=number, verdict="promote"),
        "preferences_by_people": lambda _version: (),
        "pending": lambda *_: SimpleNamespace(request=REQUEST),
        "roll_out": lambda _version, _config, _home, _why, champion: champion == 5 and SERVED,
        "go_back": lambda *_: SERVED,
        "settle": lambda *_: {"champion": 5, "previous": 4},
        "version_to_return_to": lambda *_: SimpleNamespace(version=4),
        "say_decided": lambda request, why, *_: said.append((request, why)),
    }
    for name, part in parts.items():
        monkeypatch.setattr(promote, name, part)
    return said


def test_a_promotion_by_hand_says_of_what_waited_that_it_does_no_more(by_hand):
    assert promote.promote.fn(5, "operator says so") == SERVED
    why = "version 5 was promoted by hand: operator says so"
    assert by_hand == [(REQUEST, why)]


def test_so_does_a_rollback(by_hand):
    assert promote.rollback.fn() == SERVED
    why = "version 5 was rolled back to version 4"
    assert by_hand == [(REQUEST, why)]


@pytest.mark.parametrize(("status", "asked"), [("waiting", 1), ("unchanged", 0)])
def test_a_flow_that_finds_a_version_waiting_asks_again(status, asked, monkeypatch, tmp_path):
    asks = []
    monkeypatch.setattr(retrain, "find_finished", lambda *_: SimpleNamespace(status=status))
    monkeypatch.setattr(retrain, "record_unchanged", lambda *_: None)
    monkeypatch.setattr(retrain, "ask_again", lambda *told: asks.append(told))
    retrain.find_or_train(RetrainConfig(), Home(tmp_path), "nightly")
    assert len(asks) == asked


def test_up_asks_again_for_what_waits_and_without_a_server_or_a_request_nobody_is_asked(monkeypatch, tmp_path):
    asked, home = [], Home(tmp_path)
    monkeypatch.setattr(approval_form, "ask_in_prefect", lambda request, _config: asked.append(request))
    for request, api in ((None, "http://127.0.0.1:1/api"), (REQUEST, None), (REQUEST, "http://127.0.0.1:1/api")):
        monkeypatch.setattr(approval_form, "open_request", lambda *_, request=request: request)
        monkeypatch.setattr(approval_form, "prefect_api_url", lambda _home, api=api: api)
        approval_form.ask_again(home, RetrainConfig())
    assert asked == [REQUEST]


def test_the_command_up_asks_again_once_the_servers_are_there(monkeypatch, tmp_path):
    import flows.services

    order = []
    monkeypatch.setattr(flows.services, "up", lambda *_: order.append("started") or [])
    monkeypatch.setattr(flows.services, "render_states", lambda *_: None)
    monkeypatch.setattr(approval_form, "ask_again", lambda *_: order.append("asked"))
    done = CliRunner().invoke(cli, ["--home", str(tmp_path), "up"])
    assert (done.exit_code, order) == (0, ["started", "asked"]), done.output


class Server:
    """Runs by the key under which they were started; a key that is known gives its run again, as Prefect does."""

    def __init__(self, *final):
        self.final, self.keys = list(final), []

    def start(self, _name, parameters, idempotency_key, **how):
        self.keys.append(idempotency_key)
        is_final = self.final[len(self.keys) - 1]
        return SimpleNamespace(id=f"run{len(self.keys)}", state=SimpleNamespace(is_final=lambda: is_final))


def test_a_form_that_ended_without_an_answer_is_started_under_another_key(monkeypatch):
    server = Server(True, False)
    monkeypatch.setattr(approval_form, "run_deployment", server.start)
    assert approval_form.ask_in_prefect(REQUEST, RetrainConfig()) == "run2"
    assert server.keys == [REQUEST.key, f"{REQUEST.key}-run1"]
