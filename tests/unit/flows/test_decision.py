"""A decision does what it says once, if what was shown is still there, and never twice."""

import threading
from types import SimpleNamespace

import pytest

from flows import approve as flow
from tasks.contracts.artifacts import ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import ConfigError, RegistryError, RolloutError
from tasks.contracts.home import Home
from tasks.registry.approvals import ask, requests
from tasks.registry.ledger import append_to_ledger, read_ledger

CONFIG = RetrainConfig()
YES, NO = (flow.decision_of(decision, "a good reason", "Ada") for decision in ("approve", "reject"))


class Desk:
    """A home with one version that waits, and what was done about it."""

    def __init__(self, home):
        self.home, self.changed, self.champion, self.fails = home, "", 2, False
        self.rolled_out, self.noted, self.closed = [], [], []
        version = SimpleNamespace(name="assistant", version=3, servable_path=None, report_path=None, review_path=None)
        self.request = ask(version, 2, CONFIG, "nightly", home)

    def decide(self, decision):
        return flow.decide(self.request, decision, CONFIG, self.home)

    def roll_out(self, version, _config, _home, why, against):
        if self.fails:
            raise RolloutError("Triton is down")
        self.rolled_out.append((why, against))
        self.champion = 3
        return ServedVersion(3, "assistant-v3", True, "asked")

    def status(self):
        return requests(self.home, "assistant")[-1].status


@pytest.fixture
def desk(monkeypatch, tmp_path):
    desk = Desk(Home(tmp_path))
    parts = {
        "settle": lambda *_: {},
        "find_version": lambda *_: "version",
        "read_aliases": lambda *_: {"champion": desk.champion},
        "what_changed": lambda _request, _version, champion: desk.changed or ("" if champion in (2, 3) else "another"),
        "note_approval": lambda _version, note, *_: desk.noted.append(note),
        "close_form": lambda _request, why: desk.closed.append(why),
        "roll_out": desk.roll_out,
    }
    for name, part in parts.items():
        monkeypatch.setattr(flow, name, part)
    return desk


def test_an_approval_is_written_down_and_rolled_out_against_the_champion_that_was_shown(desk):
    assert desk.decide(YES).version == 3
    said = "approved by Ada: a good reason"
    assert desk.rolled_out == [(said, 2)] and desk.noted == desk.closed == [said]
    assert desk.status() == "approved"


def test_a_refusal_changes_nothing_and_cannot_be_taken_back_here(desk):
    assert desk.decide(NO) is None
    assert desk.status() == "refused" and desk.rolled_out == []
    with pytest.raises(RegistryError, match=r"version 3 was refused before \(a good reason\); .*llm-retrain promote 3"):
        desk.decide(YES)
    assert desk.rolled_out == []


@pytest.mark.parametrize("decision", [YES, NO])
def test_what_changed_since_it_was_shown_lapses_whatever_is_decided(desk, decision):
    desk.changed = "its report was changed"
    with pytest.raises(RegistryError, match="version 3 is not any more what was shown: its report was changed"):
        desk.decide(decision)
    assert desk.status() == "lapsed" and desk.rolled_out == [] and desk.closed == ["its report was changed"]
    desk.changed = ""
    with pytest.raises(RegistryError, match=r"has lapsed: its report was changed; .*a new run asks again"):
        desk.decide(decision)


def test_an_approval_whose_roll_out_failed_can_be_given_again(desk):
    desk.fails = True
    with pytest.raises(RolloutError, match="Triton is down"):
        desk.decide(YES)
    desk.fails = False
    assert desk.decide(YES).version == 3
    assert [record["event"] for record in read_ledger(desk.home, "assistant")] == ["waiting", "approved"]


def test_an_approval_whose_roll_out_failed_can_be_taken_back(desk):
    desk.fails = True
    with pytest.raises(RolloutError, match="Triton is down"):
        desk.decide(YES)
    desk.fails = False
    assert desk.decide(NO) is None
    assert desk.status() == "refused" and desk.rolled_out == []


def test_an_approval_that_was_rolled_out_is_used_up(desk):
    desk.decide(YES)
    append_to_ledger(desk.home, "promoted", "assistant", 2, 3, "approved by Ada: a good reason")
    with pytest.raises(RegistryError, match=r"version 3 was approved before \(a good reason\)"):
        desk.decide(YES)
    assert len(desk.rolled_out) == 1


def test_a_configuration_of_another_place_decides_nothing_and_leaves_the_request_open(desk):
    other = RetrainConfig.model_validate({"serving": {"model_name": "other"}})
    with pytest.raises(RegistryError, match="cannot be decided here: it would answer for assistant"):
        flow.decide(desk.request, YES, other, desk.home)
    assert desk.status() == "open" and desk.rolled_out == []


def test_a_ledger_that_was_changed_lapses_the_request(desk, monkeypatch):
    monkeypatch.setattr(flow, "what_broke", lambda *_: "the ledger was changed")
    with pytest.raises(RegistryError, match="not any more what was shown: the ledger was changed"):
        desk.decide(YES)
    assert desk.status() == "lapsed" and desk.rolled_out == []


def test_of_two_who_decide_at_once_one_is_told(desk):
    outcomes = []

    def decide(decision):
        try:
            outcomes.append(desk.decide(decision))
        except RegistryError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=decide, args=(NO,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(None) == 1 and sum("was refused before" in str(each) for each in outcomes) == 3
    assert [record["event"] for record in read_ledger(desk.home, "assistant")] == ["waiting", "refused"]


def test_the_form_refuses_blanks_before_the_run_goes_on():
    """The server holds the form against its schema, and nothing else, before it goes on."""
    from prefect.utilities.schema_tools import is_valid_schema, validate

    schema = flow.Decision.model_json_schema()
    is_valid_schema(schema)
    good = {"decision": "approve", "reason": "two\nlines of it", "name": "张伟"}
    assert validate(good, schema) == []
    for wrong in ({"reason": "   "}, {"name": "  "}, {"name": " Ada"}, {"reason": "a \x1b[2J"}, {"name": "Ad\u202ea"}):
        assert validate(good | wrong, schema), wrong


@pytest.mark.parametrize(
    ("reason", "name", "problem"),
    [
        ("", "Ada", "--reason is ''"),
        ("  a ", "Ada", "--reason is 'a'"),
        ("a reason", " ", "--name is ''"),
        ("a \x1b[31mreason", "Ada", "--reason is"),
        ("a reason", "Ada\u202e", "--name is"),
    ],
)
def test_a_decision_without_a_reason_or_a_name_is_none(reason, name, problem):
    with pytest.raises(ConfigError, match=problem):
        flow.decision_of("approve", reason, name)
