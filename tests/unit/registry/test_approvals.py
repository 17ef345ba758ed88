"""What waits for a person, what it is bound to, and when nobody's word counts any more."""

import json
import shutil
from dataclasses import asdict, replace

import pytest

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.registry import approvals
from tasks.registry.approvals import (
    answer,
    approved_before,
    ask,
    asked_elsewhere,
    open_request,
    pending,
    requests,
    standing,
    too_late,
    what_broke,
    what_changed,
)
from tasks.registry.ledger import append_to_ledger

MODEL = "assistant"
CONFIG = RetrainConfig()


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def version_of(home, number, label="one"):
    """A version with three finished directories of its own."""

    def directory(kind):
        def write(out):
            (out / "content.txt").write_text(f"{kind} {label}")
            return {}

        return Store(home.store).produce(kind, {"label": label}, write)

    servable, report, review = (directory(kind) for kind in ("servable", "report", "review"))
    return RegisteredVersion(
        MODEL, number, "run", "promote", servable.digest, servable.path, "d", home.root, home.root, report.path, {},
        review_path=review.path,
    )  # fmt: skip


def statuses(home):
    return [(each.request.version, each.status) for each in requests(home, MODEL)]


def test_a_request_is_open_until_it_is_answered_and_the_answer_keeps_the_reason(home):
    request = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    assert open_request(home, MODEL) == request
    assert (request.version, request.champion) == (3, 2)
    answer(request, "refused", MODEL, "too curt", "Ada", home)
    assert open_request(home, MODEL) is None
    assert [(each.status, each.why) for each in requests(home, MODEL)] == [("refused", "too curt")]
    asked, answered = (json.loads(line) for line in home.ledger.read_text().splitlines())
    assert (asked["event"], asked["why"], answered["evidence"]) == ("waiting", "nightly", "decided by Ada")
    assert answered["approval"]["key"] == request.key


def test_the_same_is_asked_once_and_another_version_takes_its_place(home):
    first = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    assert ask(version_of(home, 3), 2, CONFIG, "again", home) == first
    second = ask(version_of(home, 4, "another"), 2, CONFIG, "nightly", home)
    assert statuses(home) == [(3, "lapsed"), (4, "open")]
    assert requests(home, MODEL)[0].why == "version 4 waits instead"
    assert open_request(home, MODEL) == second


def test_what_was_judged_against_another_champion_is_asked_anew(home):
    ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    ask(version_of(home, 3), 5, CONFIG, "nightly", home)
    assert statuses(home) == [(3, "lapsed"), (3, "open")]


def test_nobodys_word_counts_after_the_time(home, monkeypatch):
    version = version_of(home, 3)
    late = ask(version, None, CONFIG, "nightly", home)
    monkeypatch.setattr(approvals, "datetime", Later)
    assert late.has_expired() and statuses(home) == [(3, "lapsed")] and open_request(home, MODEL) is None
    again = ask(version, None, CONFIG, "nightly", home)
    assert not again.has_expired() and again.key != late.key
    assert statuses(home) == [(3, "lapsed"), (3, "open")]


class Later(approvals.datetime):
    """A clock that is ahead."""

    @classmethod
    def now(cls, tz=None):
        return approvals.datetime.fromisoformat("2999-01-01T00:00:00+00:00")


def approved(home, version, champion):
    return approved_before(version, champion, CONFIG, home)


def test_an_approval_is_found_again_for_just_what_was_approved(home):
    version = version_of(home, 3)
    answer(ask(version, 2, CONFIG, "nightly", home), "approved", MODEL, "good", "Ada", home)
    found = approved(home, version, 2)
    assert (found.status, found.by, found.why) == ("approved", "Ada", "good")
    assert approved(home, version, 4) is None, "another champion"
    assert approved(home, version_of(home, 3, "another"), 2) is None, "another model"
    elsewhere = CONFIG.model_copy(update={"serving": CONFIG.serving.model_copy(update={"model_name": "other"})})
    assert approved_before(version, 2, elsewhere, home) is None, "another name"


def test_an_approval_is_used_up_by_the_next_move_of_the_champion(home):
    """Otherwise the next night would promote what a person went back from, and nobody would be asked."""
    version = version_of(home, 7)
    answer(ask(version, 6, CONFIG, "nightly", home), "approved", MODEL, "good", "Ada", home)
    append_to_ledger(home, "promoted", MODEL, 6, 7, "approved by Ada: good")
    assert statuses(home) == [(7, "done")] and pending(home, MODEL) is None
    append_to_ledger(home, "promoted", MODEL, 7, 6, "7 misbehaves")
    assert approved(home, version, 6) is None
    ask(version, 6, CONFIG, "nightly", home)
    assert statuses(home) == [(7, "done"), (7, "open")]


def test_an_approval_that_was_not_rolled_out_counts_no_longer_than_its_request(home, monkeypatch):
    version = version_of(home, 3)
    answer(ask(version, 2, CONFIG, "nightly", home), "approved", MODEL, "good", "Ada", home)
    assert pending(home, MODEL).status == "approved" and open_request(home, MODEL) is None
    monkeypatch.setattr(approvals, "datetime", Later)
    assert statuses(home) == [(3, "lapsed")] and approved(home, version, 2) is None
    assert requests(home, MODEL)[0].why.startswith("approved, and not rolled out until ")


def test_what_was_approved_can_be_refused_until_it_is_rolled_out(home):
    request = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    answer(request, "approved", MODEL, "good", "Ada", home)
    answer(request, "refused", MODEL, "on second thoughts", "Ada", home)
    assert statuses(home) == [(3, "refused")] and approved(home, version_of(home, 3), 2) is None


def test_nobodys_word_counts_on_a_ledger_that_was_changed_since_it_was_asked(home):
    version = version_of(home, 3)
    append_to_ledger(home, "promoted", MODEL, None, 2, "before")
    answer(ask(version, 2, CONFIG, "nightly", home), "approved", MODEL, "good", "Ada", home)
    assert what_broke(pending(home, MODEL), home) == ""
    lines = home.ledger.read_text().splitlines()
    assert '"expires":"2' in lines[1]
    home.ledger.write_text("\n".join([lines[0], lines[1].replace('"expires":"2', '"expires":"3'), lines[2]]) + "\n")
    answer(requests(home, MODEL)[0].request, "approved", MODEL, "forged", "Eve", home)
    assert "the ledger was changed after it was asked (line 3" in what_broke(pending(home, MODEL), home)
    assert approved(home, version, 2) is None


def test_a_break_before_the_request_does_not_concern_it(home):
    append_to_ledger(home, "promoted", MODEL, None, 1, "before")
    append_to_ledger(home, "promoted", MODEL, 1, 2, "before")
    lines = home.ledger.read_text().splitlines()
    home.ledger.write_text("\n".join([lines[0].replace("before", "beside"), lines[1]]) + "\n")
    answer(ask(version_of(home, 3), 2, CONFIG, "nightly", home), "approved", MODEL, "good", "Ada", home)
    assert what_broke(pending(home, MODEL), home) == ""


def test_that_the_line_before_the_request_was_changed_does_not_concern_it_and_that_it_was_itself_does(home):
    append_to_ledger(home, "promoted", MODEL, None, 2, "before")
    home.ledger.write_text(home.ledger.read_text().replace("before", "beside"))
    version = version_of(home, 3)
    ask(version, 2, CONFIG, "nightly", home)
    assert what_broke(pending(home, MODEL), home) == ""
    home.ledger.write_text(home.ledger.read_text().replace("nightly", "monthly"))
    assert "(line 2" in what_broke(pending(home, MODEL), home), "it is the last line, which the head holds"


def test_a_request_at_the_end_of_a_ledger_without_its_head_may_have_been_answered(home):
    append_to_ledger(home, "promoted", MODEL, None, 2, "before")
    version = version_of(home, 3)
    ask(version, 2, CONFIG, "nightly", home)
    home.ledger_head.unlink()
    assert what_broke(pending(home, MODEL), home)
    append_to_ledger(home, "promoted", "another", None, 1, "later")
    assert "(line 3" in what_broke(pending(home, MODEL), home)


def test_what_is_champion_already_can_be_decided_no_more(home):
    version = version_of(home, 3)
    request = ask(version, 2, CONFIG, "nightly", home)
    assert what_changed(request, version, 3) == "it is champion already"


def test_what_is_too_late_says_what_can_be_done(home):
    request = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    answer(request, "approved", MODEL, "good", "Ada", home)
    assert "llm-retrain approve 3 does that, and reject takes it back" in too_late(standing(request, MODEL, home))
    append_to_ledger(home, "promoted", MODEL, 2, 3, "approved")
    assert too_late(standing(request, MODEL, home)).endswith("llm-retrain history says what came after")


def test_what_was_approved_and_is_asked_about_anew_has_a_request_of_its_own(home):
    """The approval does not count any more, or nobody would ask."""
    version = version_of(home, 3)
    request = ask(version, 2, CONFIG, "nightly", home)
    answer(request, "approved", MODEL, "good", "Ada", home)
    assert ask(version, 2, CONFIG, "nightly", home) != request
    assert statuses(home) == [(3, "lapsed"), (3, "open")]


@pytest.mark.parametrize("key", [["1"], {}, 1, None])
def test_an_answer_whose_key_is_no_text_is_passed_over(home, key):
    ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    append_to_ledger(home, "approved", MODEL, 2, 3, "", approval={"key": key, "name": "Eve"})
    assert statuses(home) == [(3, "open")]


@pytest.mark.parametrize(
    "approval",
    [{}, {"request": {}}, {"request": "text"}, "text", {"request": {"version": 3, "asked": "now", "expires": "then"}}],
)
def test_a_line_that_holds_no_request_is_passed_over(home, approval):
    append_to_ledger(home, "waiting", MODEL, 2, 3, "", approval=approval)
    assert requests(home, MODEL) == []
    ask(version_of(home, 4), 2, CONFIG, "nightly", home)
    assert statuses(home) == [(4, "open")]


def test_a_time_without_a_zone_is_no_request(home):
    request = ask(version_of(home, 4), 2, CONFIG, "nightly", home)
    naive = asdict(request) | {"expires": "2999-01-01T00:00:00"}
    append_to_ledger(home, "waiting", MODEL, 2, 5, "", approval={"request": naive})
    assert statuses(home) == [(4, "open")]


def test_a_request_is_about_one_registry_and_one_served_name(home):
    request = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    assert asked_elsewhere(request, CONFIG, home) == ""
    other = RetrainConfig.model_validate({"serving": {"model_name": "other"}})
    assert asked_elsewhere(request, other, home) == "it would answer for assistant, and serving.model_name is other"
    copied = RetrainConfig.model_validate({"registry": {"tracking_uri": "sqlite:////tmp/other.db"}})
    assert "another registry" in asked_elsewhere(request, copied, home)


def test_requests_of_another_model_and_answers_to_none_are_passed_over(home):
    request = ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    append_to_ledger(home, "approved", MODEL, 2, 3, "", "", approval={"key": "0" * 64, "name": "Eve"})
    assert statuses(home) == [(3, "open")] and requests(home, "another") == []
    assert open_request(home, MODEL) == request


@pytest.mark.parametrize(
    ("event", "to", "status", "why"),
    [
        ("promoted", 3, "done", "by hand"),
        ("promoted", 4, "lapsed", "version 4 became champion"),
        ("rolled back", 1, "lapsed", "version 1 became champion"),
        ("undone", 3, "open", ""),
    ],
)
def test_a_champion_that_came_in_another_way_ends_the_request(home, event, to, status, why):
    ask(version_of(home, 3), 2, CONFIG, "nightly", home)
    append_to_ledger(home, event, MODEL, 2, to, "by hand")
    assert [(each.status, each.why) for each in requests(home, MODEL)] == [(status, why)]


@pytest.mark.parametrize("kind", ["servable", "report", "review"])
def test_every_part_that_was_shown_is_held_against_its_digest(home, kind):
    version = version_of(home, 3)
    request = ask(version, 2, CONFIG, "nightly", home)
    assert what_changed(request, version, 2) == ""
    path = getattr(version, f"{kind}_path")
    other = getattr(version_of(home, 3, "another"), f"{kind}_path")
    exchanged = replace(version, **{f"{kind}_path": other})
    assert what_changed(request, exchanged, 2) == f"its {kind} is another one than was shown"
    (path / "content.txt").write_text(f"{kind} own")
    changed = f"its {kind} at {path} was changed or lost (content.txt has another sha256)"
    assert what_changed(request, version, 2) == changed
    shutil.rmtree(path)
    assert "it has no readable manifest" in what_changed(request, version, 2)


def test_another_champion_is_a_change(home):
    version = version_of(home, 3)
    request = ask(version, 2, CONFIG, "nightly", home)
    assert what_changed(request, version, 4) == "version 2 was champion when it was asked, and now version 4 is"
    assert what_changed(request, version, None) == "version 2 was champion when it was asked, and now there is none"


def test_a_version_without_a_page_cannot_be_approved(home):
    version = replace(version_of(home, 3), review_path=None)
    assert what_changed(ask(version, 2, CONFIG, "nightly", home), version, 2) == "its review is not registered any more"
