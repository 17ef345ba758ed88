"""A decision does what it says once, if what was shown is still there, and never twice."""

import threading
from types import SimpleNamespace

import pytest

from flows import approve as flow
from flows.locks import waiting_lock
from tasks.contracts.artifacts import ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import ConfigError, RegistryError, RolloutError
from tasks.contracts.home import Home
from tasks.registry.approvals import answer, ask, requests
from tasks.registry.ledger import append_to_ledger, read_ledger, unfinished_move

CONFIG = RetrainConfig()
YES, NO = (flow.decision_of(decision, "a good reason", "Ada") for decision in ("approve", "reject"))


class Desk:
    """A home with one version that waits, and what was done about it."""

    def __init__(self, home):
        self.home, self.changed, self.champion, self.fails = home, "", 2, False
        self.rolled_out, self.said, self.settle = [], [], dict
        paths = dict.fromkeys(("servable_path", "report_path", "review_path"))
        version = SimpleNamespace(name="assistant", version=3, servable_digest="candidate", **paths)
        self.version = version
        self.request = ask(version, 2, CONFIG, "nightly", home)

    def decide(self, decision):
        return flow.decide(self.request, decision, CONFIG, self.home)

    def roll_out(self, version, _config, _home, why, against, still):
        with waiting_lock(self.home, "promotion", 60, RolloutError("busy")):
            if self.fails:
                raise RolloutError("Triton is down")
            still(self.champion)
            self.rolled_out.append((why, against))
            self.promote()
        return ServedVersion(3, "assistant-v3", True, "asked")

    def promote(self):
        """What a roll-out, or the recovery of one, leaves."""
        append_to_ledger(self.home, "promoted", "assistant", 2, 3, "approved")
        self.champion = 3

    def events(self):
        return [record["event"] for record in read_ledger(self.home, "assistant")]

    def status(self):
        return requests(self.home, "assistant")[-1].status


@pytest.fixture
def desk(monkeypatch, tmp_path):
    desk = Desk(Home(tmp_path))
    parts = {
        "settled": lambda *_: desk.settle(),
        "end_unfinished": lambda *_: desk.settle() if unfinished_move(desk.home, "assistant") else None,
        "find_version": lambda *_: desk.version,
        "read_aliases": lambda *_: {"champion": desk.champion},
        "what_changed": lambda _request, _version, champion: desk.changed or ("" if champion in (2, 3) else "another"),
        "say_decided": lambda _request, why, *_: desk.said.append(why),
        "roll_out": desk.roll_out,
    }
    for name, part in parts.items():
        monkeypatch.setattr(flow, name, part)
    monkeypatch.setattr("flows.rollout.find_overruled", lambda *_: None)
    return desk


def test_an_approval_is_written_down_and_rolled_out_against_the_champion_that_was_shown(desk):
    assert desk.decide(YES).version == 3
    said = "approved by Ada: a good reason"
    assert desk.rolled_out == [(said, 2)] and desk.said == [said]
    assert desk.status() == "done"


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
    assert desk.status() == "lapsed" and desk.rolled_out == [] and desk.said == ["lapsed: its report was changed"]
    desk.changed = ""
    with pytest.raises(RegistryError, match=r"has lapsed: its report was changed; .*a new run asks again"):
        desk.decide(decision)


def test_an_approval_whose_roll_out_failed_can_be_given_again(desk):
    desk.fails = True
    with pytest.raises(RolloutError, match="Triton is down"):
        desk.decide(YES)
    desk.fails = False
    assert desk.decide(YES).version == 3
    assert desk.events() == ["waiting", "approved", "promoted"]


def test_an_approval_whose_roll_out_failed_can_be_taken_back(desk):
    desk.fails = True
    with pytest.raises(RolloutError, match="Triton is down"):
        desk.decide(YES)
    desk.fails = False
    assert desk.decide(NO) is None
    assert desk.status() == "refused" and desk.rolled_out == []


def test_an_approval_that_was_rolled_out_is_used_up(desk):
    desk.decide(YES)
    with pytest.raises(RegistryError, match=r"version 3 was approved before \(a good reason\), and became champion"):
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
    assert desk.events() == ["waiting", "refused"]


def test_of_two_who_approve_at_once_one_rolls_out_and_the_other_is_told(desk, monkeypatch):
    """Both have said so before either has rolled it out."""
    both, outcomes = threading.Barrier(2), []
    monkeypatch.setattr(flow, "say_decided", lambda *_: both.wait(60))

    def decide(name):
        try:
            outcomes.append(desk.decide(flow.decision_of("approve", "a good reason", name)).version)
        except RegistryError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=decide, args=(name,)) for name in ("Ada", "Bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.rolled_out) == 1 and outcomes.count(3) == 1
    assert (
        sum("version 3 was approved before (a good reason), and became champion" in str(each) for each in outcomes) == 1
    )
    assert desk.events() == ["waiting", "approved", "approved", "promoted"], "each of them wrote down what he said"


@pytest.mark.parametrize("decision", [YES, NO])
def test_a_roll_out_that_was_killed_after_the_alias_is_ended_before_anything_is_decided(desk, decision):
    """Otherwise a refusal is written down, and then forgotten when the promotion is."""
    answer(desk.request, "approved", "assistant", "good", "Ada", desk.home)
    append_to_ledger(desk.home, "started", "assistant", 2, 3, "approved by Ada: good")
    desk.settle = desk.promote
    with pytest.raises(RegistryError, match=r"version 3 was approved before \(good\), and became champion"):
        desk.decide(decision)
    assert desk.rolled_out == [] and desk.events() == ["waiting", "approved", "started", "promoted"]


def test_a_refusal_asks_no_server(desk, monkeypatch):
    """What was approved may be what keeps Triton from starting."""
    monkeypatch.setattr(flow, "settled", lambda *_: pytest.fail("it starts Triton"))
    assert desk.decide(NO) is None


def test_an_approval_that_lapsed_before_it_was_rolled_out_promotes_nothing(desk, monkeypatch):
    """Another run has asked about another version between the two."""
    lapse = lambda request, *_: answer(request, "lapsed", "assistant", "version 4 waits instead", "", desk.home)  # noqa: E731
    monkeypatch.setattr(flow, "say_decided", lapse)
    with pytest.raises(RegistryError, match="the request for version 3 has lapsed: version 4 waits instead"):
        desk.decide(YES)
    assert desk.rolled_out == []


@pytest.fixture
def shown(desk, monkeypatch):
    """What the run that asks shows, and whether it suspends."""
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(desk.home.root))
    monkeypatch.setattr(flow, "record_log_lines", lambda: None)
    asked = []
    monkeypatch.setattr(flow, "_ask", lambda request, *_: asked.append(request) or YES)
    return asked


def test_the_form_is_shown_and_what_is_filled_in_is_done(desk, shown):
    assert flow.approve.fn(3).name == "Approved"
    assert shown == [desk.request] and len(desk.rolled_out) == 1


@pytest.mark.parametrize("key", ["", "named"])
def test_what_was_decided_before_is_asked_no_more(desk, shown, key):
    desk.decide(NO)
    if key:
        assert flow.approve.fn(3, desk.request.key).name == "Decided"
    else:
        with pytest.raises(RegistryError, match="version 3 was refused before"):
            flow.approve.fn(3)
    assert shown == []


def test_what_changed_lapses_before_anybody_is_shown_anything(desk, shown):
    desk.changed = "its review at /x was changed or lost (review.md is missing)"
    with pytest.raises(RegistryError, match="not any more what was shown: its review at /x was changed or lost"):
        flow.approve.fn(3)
    assert shown == [] and desk.status() == "lapsed"


def test_a_line_feed_at_the_end_is_taken_off_since_the_server_lets_it_through():
    from prefect.utilities.schema_tools import validate

    said = {"decision": "approve", "reason": "read ten answers\n", "name": "Ada\n"}
    assert validate(said, flow.Decision.model_json_schema()) == []
    decision = flow.Decision.model_validate(said)
    assert (decision.reason, decision.name) == ("read ten answers", "Ada")


def test_the_form_refuses_blanks_before_the_run_goes_on():
    """The server holds the form against its schema, and nothing else, before it goes on."""
    from prefect.utilities.schema_tools import is_valid_schema, validate

    schema = flow.Decision.model_json_schema()
    is_valid_schema(schema)
    good = {"decision": "approve", "reason": "two\nlines of it", "name": "张伟"}
    assert validate(good, schema) == []
    for wrong in (
        {"reason": "   "},
        {"name": "  "},
        {"name": " Ada"},
        {"reason": "a \x1b[2J"},
        {"name": "Ad\u202ea"},
        {"name": "Ad\u061ca"},
    ):
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
