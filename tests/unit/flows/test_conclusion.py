"""What follows from a verdict: rolled out, waiting, or decided by a person before."""

from types import SimpleNamespace

import pytest

from flows import conclusion
from tasks.contracts.artifacts import GateDecision, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RolloutError
from tasks.contracts.home import Home

SERVED = ServedVersion(5, "assistant-v5", True, "asked")
VERSION = SimpleNamespace(version=5, servable_digest="candidate")
REQUEST = SimpleNamespace(expires="2026-11-25T09:30:00+00:00", version=5)
BEFORE = SimpleNamespace(version=2)


class Ending:
    """Concludes a run with parts that only note what they were told."""

    def __init__(self, monkeypatch, home):
        self.monkeypatch, self.home = monkeypatch, home
        self.open, self.closed, self.champion = None, [], None
        self.rolled_out, self.asked, self.noted, self.shown = [], [], [], []

    def __call__(self, verdict="promote", champion=None, overruled=None, approval="automatic", before=None):
        parts = {
            "find_overruled": lambda _registry, digest, _home: overruled if digest == "candidate" else None,
            "overruled_versions": lambda *_: {3: "refused", 4: "rolled back"},
            "approved_before": lambda _version, against, *_: before and before[against],
            "read_aliases": lambda *_: {"champion": self.champion} if self.champion else {},
            "ask": lambda version, against, config, why, _home: self.asked.append((against, why)) or REQUEST,
            "write_on_its_page": lambda version, note, *_: self.noted.append((version, note)),
            "pending": lambda *_: self.open and SimpleNamespace(request=self.open),
            "say_decided": lambda request, why, *_: self.closed.append((request, why)),
            "ask_in_prefect": lambda request, _config: self.shown.append(request),
            "not_overruled": lambda *_: "not overruled",
            "approved_still": lambda request, *_: f"{request} is approved",
            "roll_out": lambda _version, _config, _home, *how: self.rolled_out.append(how) or SERVED,
        }
        for name, part in parts.items():
            self.monkeypatch.setattr(conclusion, name, part)
        self.champion = champion.version if champion and self.champion is None else self.champion
        config = RetrainConfig.model_validate({"promotion": {"approval": approval, "expires_after_hours": 24}})
        decision = GateDecision(verdict, "base", ())
        return conclusion.conclude(VERSION, decision, champion, config, self.home, "nightly")


@pytest.fixture
def ending(monkeypatch, tmp_path):
    return Ending(monkeypatch, Home(tmp_path))


@pytest.mark.parametrize(("verdict", "status"), [("reject", "rejected"), ("inconclusive", "inconclusive")])
@pytest.mark.parametrize("approval", ["automatic", "person"])
def test_what_did_not_pass_goes_nowhere_and_nobody_is_asked(ending, verdict, status, approval):
    assert ending(verdict, approval=approval).facts() == {"status": status, "overruled": "", "waits_until": ""}
    assert ending.rolled_out == ending.asked == ending.shown == []


@pytest.mark.parametrize(("champion", "against"), [(None, None), (SimpleNamespace(version=4), 4)])
def test_a_roll_out_is_told_which_champion_the_candidate_was_judged_against(ending, champion, against):
    ended = ending(champion=champion)
    assert (ended.status, ended.served) == ("promoted", SERVED)
    assert ending.rolled_out == [("nightly", against, "not overruled")] and ending.asked == []


@pytest.mark.parametrize(("number", "how"), [(3, "refused"), (4, "rolled back")])
@pytest.mark.parametrize("approval", ["automatic", "person"])
def test_what_a_person_decided_against_is_neither_rolled_out_nor_asked_about(ending, number, how, approval):
    ended = ending(overruled=SimpleNamespace(version=number), approval=approval)
    assert (ended.status, ended.overruled, ended.served) == ("unchanged", how, None)
    assert ending.rolled_out == ending.asked == []


def test_where_a_person_decides_it_waits_and_is_shown(ending):
    ended = ending(champion=SimpleNamespace(version=4), approval="person")
    assert (ended.status, ended.waits_until, ended.served) == ("waiting", REQUEST.expires, None)
    assert ending.asked == [(4, "nightly")] and ending.shown == [REQUEST] and ending.rolled_out == []
    assert ending.noted == [(5, f"waits for a decision until {REQUEST.expires}")]


def test_the_form_of_what_waited_before_is_closed_and_its_own_is_not(ending):
    ending.open = BEFORE
    ending(approval="person")
    assert ending.closed == [(BEFORE, "lapsed: version 5 waits instead")]
    ending.open = REQUEST
    ending(approval="person")
    assert len(ending.closed) == 1
    ending()
    assert ending.closed[1:] == [(REQUEST, "version 5 was promoted: nightly")]


def test_what_was_approved_and_could_not_be_rolled_out_then_needs_no_second_word(ending):
    ended = ending(approval="person", before={None: SimpleNamespace(by="Ada", why="good", request="it")})
    assert ended.status == "promoted" and ending.asked == []
    assert ending.rolled_out == [("approved by Ada: good", None, "it is approved")]


def test_nobody_is_asked_about_the_champion(ending):
    """Somebody has promoted it by hand while it was judged."""
    ending.champion = 5
    ended = ending(champion=SimpleNamespace(version=4), approval="person")
    assert (ended.status, ending.asked, ending.shown) == ("unchanged", [], [])


def test_nobody_is_asked_about_what_was_judged_against_another_champion_than_there_is(ending):
    ending.champion = 6
    with pytest.raises(RolloutError, match="version 5 was to replace version 4, and by now that is version 6"):
        ending(champion=SimpleNamespace(version=4), approval="person")
    assert ending.asked == ending.shown == []
