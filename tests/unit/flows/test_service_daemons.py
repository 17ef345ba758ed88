"""Processes that outlive their starter: found again, not mistaken for others, stopped with what they started."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from flows.services.daemon import running_daemon, start_daemon, stop_daemon, wait_until_ready
from tasks.contracts.errors import EnvironmentProblem

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=new) for new in (False, True)]
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(home):
    """Start Python code as a daemon named "sleeper"; whatever is left of it is stopped at the end."""

    def run(code):
        return start_daemon(home, "sleeper", [sys.executable, "-c", code], dict(os.environ))

    yield run
    stop_daemon(home, "sleeper", timeout_seconds=1)


def wait_for_log(home, lines=1):
    deadline = time.monotonic() + 20
    log = home.logs / "sleeper.log"
    while len(log.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, "the process printed nothing"
        time.sleep(0.05)
    return log.read_text()


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_started_process_is_found_again_and_leads_a_session_of_its_own(home, start):
    daemon = start(SLEEP)
    assert running_daemon(home, "sleeper") == daemon
    assert os.getsid(daemon.pid) == daemon.pid


def test_a_clock_that_was_set_loses_no_process(home, start):
    daemon = start(SLEEP)
    file = home.pids / "sleeper.pid"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"started": daemon.started - 3_600}))
    assert running_daemon(home, "sleeper").pid == daemon.pid
    assert stop_daemon(home, "sleeper") is True
    assert not is_alive(daemon.pid)


def test_a_process_that_ended_is_not_running(home, start):
    daemon = start("pass")
    psutil.Process(daemon.pid).wait(20)
    assert running_daemon(home, "sleeper") is None


def test_another_process_with_the_same_pid_is_neither_found_nor_stopped(home, start):
    """The pid file names a living process, but one that started at another tick."""
    daemon = start(SLEEP)
    file = home.pids / "sleeper.pid"
    original = file.read_text()
    file.write_text(json.dumps(json.loads(original) | {"mark": "another-boot:1"}))
    assert running_daemon(home, "sleeper") is None
    assert stop_daemon(home, "sleeper") is False
    assert is_alive(daemon.pid)
    file.write_text(original)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_pid_file_that_is_cut_off_counts_as_not_running(home, content):
    home.pids.mkdir(parents=True)
    (home.pids / "sleeper.pid").write_text(content)
    assert running_daemon(home, "sleeper") is None


def test_stopping_ends_children_in_the_session_and_outside_of_it(home, start):
    daemon = start(PARENT.format(child=SLEEP))
    children = [int(pid) for pid in wait_for_log(home).split()]
    assert len(children) == 2 and all(map(is_alive, children))
    assert stop_daemon(home, "sleeper", timeout_seconds=10) is True
    assert not any(map(is_alive, [daemon.pid, *children]))
    assert not (home.pids / "sleeper.pid").exists()


def test_what_ignores_the_polite_signal_is_killed_after_the_timeout(home, start):
    daemon = start(STUBBORN)
    wait_for_log(home)
    started = time.monotonic()
    assert stop_daemon(home, "sleeper", timeout_seconds=1) is True
    assert time.monotonic() - started < 10
    assert not is_alive(daemon.pid)


def test_stopping_what_does_not_run_says_so(home):
    assert stop_daemon(home, "sleeper") is False


def test_a_process_that_dies_while_it_starts_is_reported_with_the_end_of_its_log(home, start):
    (home.logs).mkdir(parents=True)
    (home.logs / "sleeper.log").write_text("a line of yesterday\n")
    daemon = start("raise SystemExit('the database is of a later version')")
    with pytest.raises(EnvironmentProblem, match="sleeper ended while it started") as caught:
        wait_until_ready(daemon, lambda: False, time.monotonic() + 20)
    assert "the database is of a later version" in str(caught.value)
    assert "yesterday" not in str(caught.value)


def test_a_process_that_dies_beside_the_one_waited_for_is_noticed(home, start):
    other = start("raise SystemExit('no such table')")
    mine = start_daemon(home, "waiting", [sys.executable, "-c", SLEEP], dict(os.environ))
    try:
        with pytest.raises(EnvironmentProblem, match="no such table"):
            wait_until_ready(mine, lambda: False, time.monotonic() + 20, beside=(other,))
    finally:
        stop_daemon(home, "waiting", 1)


def test_waiting_ends_at_the_deadline(home, start):
    daemon = start(SLEEP)
    with pytest.raises(EnvironmentProblem, match=r"sleeper \(pid \d+\) is not ready in time"):
        wait_until_ready(daemon, lambda: False, time.monotonic() + 0.5)


def test_a_flow_run_with_a_living_process_is_not_called_lost():
    from flows.services.lost_runs import close_lost_runs

    closed = []

    class Api:
        def unfinished_runs(self, pool):
            return [{"id": "run-alive", "name": "alive"}, {"id": "run-gone", "name": "gone"}]

        def mark_crashed(self, run_id, message):
            closed.append(run_id)

    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": "run-alive"}
    process = subprocess.Popen([sys.executable, "-c", SLEEP], env=environment)
    try:
        assert close_lost_runs(Api(), "llm-retrain") == 1
    finally:
        process.kill()
        process.wait()
    assert closed == ["run-gone"]


def test_a_run_of_a_command_is_lost_when_the_process_that_its_tag_names_is_gone():
    from flows.services.lost_runs import close_lost_commands, process_tag

    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    gone = f"process-{ended.pid}-{psutil.Process(ended.pid).create_time():.2f}"
    ended.wait()
    closed = []

    class Api:
        def unfinished_runs_of_commands(self):
            tags = {"own": [process_tag()], "gone": [gone, "mine"], "somebody's": ["mine"]}
            return [{"id": name, "name": name, "tags": told} for name, told in tags.items()]

        def mark_crashed(self, run_id, message):
            closed.append(run_id)

    assert close_lost_commands(Api()) == 1
    assert closed == ["gone"]
