"""The ledger: one line a move, and what it says about the champions there were."""

import threading

from tasks.contracts.home import Home
from tasks.registry.ledger import append_to_ledger, champions_in_order, read_ledger


def test_every_move_is_a_line_that_says_who_when_why_from_to_and_evidence(tmp_path):
    home = Home(tmp_path)
    append_to_ledger(home, "promoted", "assistant", None, 1, "nightly", "8 golden prompts answered as evaluated")
    (record,) = read_ledger(home)
    assert set(record) == {"time", "who", "event", "model", "from", "to", "why", "evidence"}
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
    assert champions_in_order(home, "assistant") == [1]
    record("promoted", 1, 3)
    record("promoted", 3, 3)
    record("promoted", 3, 4)
    assert champions_in_order(home, "assistant") == [1, 3, 4]
    record("rolled back", 4, 3)
    assert champions_in_order(home, "assistant") == [1, 3]
    record("rolled back", 3, 1)
    assert champions_in_order(home, "assistant") == [1]
    record("promoted", 1, 5)
    assert champions_in_order(home, "assistant") == [1, 5]


def test_a_model_without_moves_has_no_champions(tmp_path):
    assert champions_in_order(Home(tmp_path), "assistant") == []
