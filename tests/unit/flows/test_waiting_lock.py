"""The lock of promotions: the second one waits for the first, and not for ever."""

import threading
import time

import pytest

from flows.locks import waiting_lock
from flows.undo import UndoSteps
from tasks.contracts.errors import RolloutError
from tasks.contracts.home import Home

BUSY = RolloutError("busy")


def hold(home, seconds, held):
    with waiting_lock(home, "promotion", 0, BUSY):
        held.set()
        time.sleep(seconds)


@pytest.mark.parametrize(("timeout_seconds", "gets_it"), [(20, True), (0.1, False)])
def test_a_lock_in_use_is_waited_for_and_not_for_ever(tmp_path, timeout_seconds, gets_it):
    home, held = Home(tmp_path), threading.Event()
    holder = threading.Thread(target=hold, args=(home, 1.0, held))
    holder.start()
    assert held.wait(5)
    entered = False
    try:
        with waiting_lock(home, "promotion", timeout_seconds, BUSY):
            entered = True
    except RolloutError as error:
        assert error is BUSY
    holder.join()
    assert entered == gets_it


def test_locks_of_other_names_do_not_wait(tmp_path):
    home = Home(tmp_path)
    with waiting_lock(home, "promotion", 0, BUSY), waiting_lock(home, "retrain", 0, BUSY):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["promotion.lock", "retrain.lock"]


def test_undo_steps_run_in_reverse_and_one_that_fails_does_not_stop_the_others():
    done, undo = [], UndoSteps()

    def fail():
        raise KeyboardInterrupt

    undo.add("first", lambda: done.append("first"))
    undo.add("second", fail)
    undo.add("third", lambda: done.append("third"))
    assert undo.run() == ["second: KeyboardInterrupt"]
    assert done == ["third", "first"]
    assert undo.run() == [], "what was undone is undone"


def test_how_long_it_waits_at_most_is_said_in_hours_where_it_is_long(tmp_path, caplog):
    home, held = Home(tmp_path), threading.Event()
    holder = threading.Thread(target=hold, args=(home, 0.5, held))
    holder.start()
    assert held.wait(5)
    with caplog.at_level("INFO"), waiting_lock(home, "promotion", 86_400, BUSY):
        pass
    holder.join()
    assert "Waiting up to 24 h: another promotion is under way" in caplog.text
