"""The ledger: one line a move, and what it says about the champions there were."""

import json
import logging
import os
import resource
import threading

import pytest

from tasks.contracts.errors import StoreError
from tasks.contracts.home import Home
from tasks.registry.ledger import (
    append_to_ledger,
    champions,
    champions_ever,
    overruled_versions,
    previous_after_rollback,
    read_ledger,
    this_user,
    unfinished_move,
)


def record_moves(home, *moves):
    for event, before, after in moves:
        append_to_ledger(home, event, "assistant", before, after, "test")


def test_every_move_is_a_line_that_says_who_when_why_from_to_and_evidence(tmp_path):
    home = Home(tmp_path)
    append_to_ledger(home, "promoted", "assistant", None, 1, "nightly", "8 golden prompts answered as evaluated")
    (record,) = read_ledger(home)
    assert set(record) == {"time", "who", "event", "model", "from", "to", "why", "evidence", "previous"}
    assert (record["event"], record["from"], record["to"], record["why"]) == ("promoted", None, 1, "nightly")


def test_lines_of_other_models_are_told_apart(tmp_path):
    home = Home(tmp_path)
    append_to_ledger(home, "promoted", "assistant", None, 1, "first")
    append_to_ledger(home, "promoted", "translator", None, 7, "first")
    assert [record["to"] for record in read_ledger(home, "translator")] == [7]


def test_simultaneous_writers_do_not_tear_lines(tmp_path):
    home = Home(tmp_path)

    def write(number):
        for _ in range(25):
            append_to_ledger(home, "started", "assistant", None, number, "x" * 3_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ledger(home)) == 100


def test_champions_come_in_order_and_undone_moves_do_not_count(tmp_path):
    home = Home(tmp_path)

    def record(event, before, after):
        append_to_ledger(home, event, "assistant", before, after, "test")

    record("promoted", None, 1)
    record("started", 1, 2)
    record("undone", 1, 2)
    assert champions(home, "assistant").in_order == [1]
    record("promoted", 1, 3)
    record("promoted", 3, 3)
    record("promoted", 3, 4)
    assert champions(home, "assistant").in_order == [1, 3, 4]
    record("rolled back", 4, 3)
    assert champions(home, "assistant").in_order == [1, 3]
    record("rolled back", 3, 1)
    assert champions(home, "assistant").in_order == [1]
    record("promoted", 1, 5)
    assert champions(home, "assistant").in_order == [1, 5]


def test_a_model_without_moves_has_no_champions(tmp_path):
    assert champions(Home(tmp_path), "assistant").in_order == []


def test_a_rollback_returns_to_the_latest_time_that_a_version_was_champion(tmp_path):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1), ("promoted", 1, 2), ("promoted", 2, 1), ("promoted", 1, 3))
    assert previous_after_rollback(home, "assistant", 3, 1) == 2
    assert previous_after_rollback(home, "assistant", 3, 2) == 1
    record_moves(home, ("rolled back", 3, 1))
    assert champions(home, "assistant").in_order == [1, 2, 1]
    assert previous_after_rollback(home, "assistant", 1, 2) == 1


def test_the_first_champion_has_none_before_it(tmp_path):
    record_moves(Home(tmp_path), ("promoted", None, 1), ("promoted", 1, 2))
    assert previous_after_rollback(Home(tmp_path), "assistant", 2, 1) is None


def test_a_rollback_over_several_versions_is_like_as_many_rollbacks(tmp_path):
    moves = [("promoted", None, 1), ("promoted", 1, 2), ("promoted", 2, 3), ("promoted", 3, 4)]
    at_once, one_by_one = Home(tmp_path / "at once"), Home(tmp_path / "one by one")
    record_moves(at_once, *moves, ("rolled back", 4, 2))
    record_moves(one_by_one, *moves, ("rolled back", 4, 3), ("rolled back", 3, 2))
    for home in (at_once, one_by_one):
        assert champions(home, "assistant").in_order == [1, 2]
        assert set(overruled_versions(home, "assistant")) == {3, 4}


def test_a_return_to_a_version_that_was_rolled_back_leaves_the_one_it_replaces(tmp_path):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1), ("promoted", 1, 2), ("promoted", 2, 3), ("rolled back", 3, 2))
    assert previous_after_rollback(home, "assistant", 2, 3) == 1, "not 2, which a person just left"
    record_moves(home, ("rolled back", 2, 3))
    assert champions(home, "assistant").in_order == [1, 3]
    assert overruled_versions(home, "assistant") == {2: "rolled back"}


def test_every_version_that_ever_was_champion_is_known(tmp_path):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1), ("promoted", 1, 2), ("rolled back", 2, 1), ("started", 1, 3))
    record_moves(home, ("undone", 1, 3))
    assert champions_ever(home, "assistant") == {1, 2}


def test_a_version_counts_as_rolled_back_until_it_is_promoted_again(tmp_path):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1), ("promoted", 1, 2), ("rolled back", 2, 1))
    assert overruled_versions(home, "assistant") == {2: "rolled back"}
    record_moves(home, ("started", 1, 2), ("undone", 1, 2))
    assert set(overruled_versions(home, "assistant")) == {2}, "a promotion that was undone is none"
    record_moves(home, ("promoted", 1, 2))
    assert overruled_versions(home, "assistant") == {}


def test_a_version_that_was_refused_counts_as_overruled_until_it_is_promoted(tmp_path):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1), ("waiting", 1, 2), ("refused", 1, 2))
    assert overruled_versions(home, "assistant") == {2: "refused"}
    assert champions(home, "assistant").in_order == [1] and champions_ever(home, "assistant") == {1}
    record_moves(home, ("promoted", 1, 2))
    assert overruled_versions(home, "assistant") == {}


@pytest.mark.parametrize("event", ["waiting", "approved", "refused", "lapsed"])
def test_a_decision_that_is_asked_for_or_made_during_a_move_does_not_hide_that_it_has_no_end(tmp_path, event):
    home = Home(tmp_path)
    record_moves(home, ("started", 1, 2), ("loaded", 1, 2), (event, 1, 3))
    assert unfinished_move(home, "assistant")["to"] == 2


@pytest.mark.parametrize("end", ["promoted", "rolled back", "undone", "undo failed", "reconciled"])
def test_a_move_without_an_end_is_found(tmp_path, end):
    home = Home(tmp_path)
    assert unfinished_move(home, "assistant") is None
    record_moves(home, ("started", 1, 2), ("loaded", 1, 2))
    assert unfinished_move(home, "assistant")["to"] == 2
    record_moves(home, (end, 1, 2))
    assert unfinished_move(home, "assistant") is None
    record_moves(home, ("loaded", 1, 1))
    assert unfinished_move(home, "assistant") is None, "what ended has ended"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\r\n"])
def test_a_reason_with_line_separators_of_other_alphabets_stays_one_line(tmp_path, separator):
    home, why = Home(tmp_path), f"one{separator}two"
    append_to_ledger(home, "promoted", "assistant", None, 1, why)
    append_to_ledger(home, "promoted", "assistant", 1, 2, "next")
    assert [record["why"] for record in read_ledger(home)] == [why, "next"]


def test_a_torn_line_is_reported_and_the_next_one_stands_on_a_line_of_its_own(tmp_path, caplog):
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1))
    with home.ledger.open("ab") as file:
        file.write('{"event":"promoted","evidence":"é'.encode()[:-1])  # as a power cut leaves it
    record_moves(home, ("promoted", 1, 2))
    with caplog.at_level(logging.WARNING):
        assert champions(home, "assistant").in_order == [1, 2]
    assert "Line 2 of the ledger" in caplog.text


def test_a_line_that_does_not_fit_leaves_nothing_and_says_so(tmp_path):
    """The first write is cut short by a file size limit, the second refused: what a full disk does."""
    home = Home(tmp_path)
    record_moves(home, ("promoted", None, 1))
    before = home.ledger.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"the ledger .* cannot be written \(File too large\)"):
            record_moves(home, ("promoted", 1, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert home.ledger.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        *({"time": 5}, {"to": [3]}, {"to": "3"}, {"to": None}, {"from": {}}, {"why": None}),
        *({"model": ["assistant"]}, {"event": 1}, {"intent": "x"}, {"intent": {"outcome": 5}}),
        {"intent": {"outcome": "promoted", "aliases": {"champion": "1"}}},
    ],
)
def test_a_line_whose_values_are_of_another_type_is_left_out_and_named(tmp_path, wrong, caplog):
    home = Home(tmp_path)
    append_to_ledger(home, "refused", "assistant", None, 3, "test")
    record = json.loads(home.ledger.read_text())
    with home.ledger.open("a") as file:
        file.write(json.dumps(record | wrong) + "\n")
    assert len(read_ledger(home)) == 1 and overruled_versions(home, "assistant") == {3: "refused"}
    assert "Line 2 of the ledger" in caplog.text


def test_a_user_id_without_a_name_is_called_by_its_number(monkeypatch):
    def no_name():
        raise KeyError("getpwuid(): uid not found: 0")

    monkeypatch.setattr("getpass.getuser", no_name)
    assert this_user() == f"uid {os.getuid()}"
