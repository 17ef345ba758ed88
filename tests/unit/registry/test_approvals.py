"""What waits for a person, what it is bound to, and when nobody's word counts any more."""

import json
import shutil
from dataclasses import replace

import pytest

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.registry import approvals
from tasks.registry.approvals import answer, ask, asked_before, open_request, requests, what_changed
from tasks.registry.ledger import append_to_ledger

MODEL = "assistant"


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
    request = ask(version_of(home, 3), 2, 72, "nightly", home)
    assert open_request(home, MODEL) == request
    assert (request.version, request.champion) == (3, 2)
    answer(request, "refused", MODEL, "too curt", "Ada", home)
    assert open_request(home, MODEL) is None
    assert [(each.status, each.why) for each in requests(home, MODEL)] == [("refused", "too curt")]
    asked, answered = (json.loads(line) for line in home.ledger.read_text().splitlines())
    assert (asked["event"], asked["why"], answered["evidence"]) == ("waiting", "nightly", "decided by Ada")
    assert answered["approval"]["key"] == request.key


def test_the_same_is_asked_once_and_another_version_takes_its_place(home):
    first = ask(version_of(home, 3), 2, 72, "nightly", home)
    assert ask(version_of(home, 3), 2, 1, "again", home) == first
    second = ask(version_of(home, 4, "another"), 2, 72, "nightly", home)
    assert statuses(home) == [(3, "lapsed"), (4, "open")]
    assert requests(home, MODEL)[0].why == "version 4 waits instead"
    assert open_request(home, MODEL) == second


def test_what_was_judged_against_another_champion_is_asked_anew(home):
    ask(version_of(home, 3), 2, 72, "nightly", home)
    ask(version_of(home, 3), 5, 72, "nightly", home)
    assert statuses(home) == [(3, "lapsed"), (3, "open")]


def test_nobodys_word_counts_after_the_time(home, monkeypatch):
    version = version_of(home, 3)
    late = ask(version, None, 1e-9, "nightly", home)
    monkeypatch.setattr(approvals, "datetime", Later)
    assert late.has_expired() and statuses(home) == [(3, "lapsed")] and open_request(home, MODEL) is None
    monkeypatch.undo()
    again = ask(version, None, 72, "nightly", home)
    assert not again.has_expired() and again.key != late.key


class Later(approvals.datetime):
    """A clock that is ahead."""

    @classmethod
    def now(cls, tz=None):
        return approvals.datetime.fromisoformat("2999-01-01T00:00:00+00:00")


def test_an_approval_is_found_again_for_just_what_was_approved(home):
    version = version_of(home, 3)
    answer(ask(version, 2, 72, "nightly", home), "approved", MODEL, "good", "Ada", home)
    assert asked_before(version, 2, home).status == "approved"
    assert asked_before(version, 4, home) is None, "another champion"
    assert asked_before(version_of(home, 3, "another"), 2, home) is None, "another model"


def test_requests_of_another_model_and_answers_to_none_are_passed_over(home):
    request = ask(version_of(home, 3), 2, 72, "nightly", home)
    append_to_ledger(home, "approved", MODEL, 2, 3, "", "", approval={"key": "0" * 64, "name": "Eve"})
    assert statuses(home) == [(3, "open")] and requests(home, "another") == []
    assert open_request(home, MODEL) == request


@pytest.mark.parametrize(
    ("event", "to", "status", "why"),
    [
        ("promoted", 3, "approved", "by hand"),
        ("promoted", 4, "lapsed", "version 4 became champion"),
        ("rolled back", 1, "lapsed", "version 1 became champion"),
        ("undone", 3, "open", ""),
    ],
)
def test_a_champion_that_came_in_another_way_ends_the_request(home, event, to, status, why):
    ask(version_of(home, 3), 2, 72, "nightly", home)
    append_to_ledger(home, event, MODEL, 2, to, "by hand")
    assert [(each.status, each.why) for each in requests(home, MODEL)] == [(status, why)]


@pytest.mark.parametrize("kind", ["servable", "report", "review"])
def test_every_part_that_was_shown_is_held_against_its_digest(home, kind):
    version = version_of(home, 3)
    request = ask(version, 2, 72, "nightly", home)
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


def test_another_champion_is_a_change_and_the_version_itself_is_none(home):
    version = version_of(home, 3)
    request = ask(version, 2, 72, "nightly", home)
    assert what_changed(request, version, 4) == "version 2 was champion when it was asked, and now version 4 is"
    assert what_changed(request, version, None) == "version 2 was champion when it was asked, and now there is none"
    assert what_changed(request, version, 3) == "", "a promotion that was killed after its last alias"


def test_a_version_without_a_page_cannot_be_approved(home):
    version = replace(version_of(home, 3), review_path=None)
    assert what_changed(ask(version, 2, 72, "nightly", home), version, 2) == "its review is not registered any more"
