"""A lock on a file is held by one at a time, and given back however its holder ends."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.contracts.locks import held_lock, lock_if_free


def test_whoever_wants_a_held_lock_waits_until_it_is_given_back(tmp_path):
    """Each of several threads finds the number as it left it: nobody else was in between."""
    path, number = tmp_path / "made" / "some.lock", [0]

    def count(_):
        with held_lock(path):
            before = number[0]
            time.sleep(0.005)
            number[0] = before + 1

    with ThreadPoolExecutor(8) as together:
        list(together.map(count, range(16)))
    assert number == [16]


def test_a_lock_that_another_process_holds_is_not_free_until_that_process_was_killed(tmp_path):
    path = tmp_path / "some.lock"
    code = (
        "import sys, time, pathlib; from tasks.contracts.locks import held_lock\n"
        "with held_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with lock_if_free(path) as held:
            assert not held
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=10)
        with lock_if_free(path) as held:
            assert held
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("lock", [held_lock, lock_if_free])
def test_an_error_in_the_block_gives_the_lock_back(tmp_path, lock):
    with pytest.raises(RuntimeError), lock(tmp_path / "some.lock"):
        raise RuntimeError
    with lock_if_free(tmp_path / "some.lock") as held:
        assert held
