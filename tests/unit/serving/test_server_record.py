"""The record of the running Triton server is believed as long as its process lives."""

import json
import os
import subprocess
import sys

import pytest

from tasks.serving.server_record import read_record, write_record
from tasks.serving.triton_client import TritonAddress

ADDRESS = TritonAddress(8000, 8001, 8002, "token")


@pytest.fixture
def change(home):
    """Record this process, and return what changes the record; None takes a field away."""
    home.pids.mkdir(parents=True)
    write_record(home, os.getpid(), ADDRESS)
    path = home.pids / "triton.pid"

    def change(**fields):
        record = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))

    return change


@pytest.mark.parametrize("seconds", [0, 1, -1.5, 60, -40_000])
def test_however_far_the_clock_is_set_the_server_is_not_lost(home, change, seconds):
    """As after a machine slept, or was moved: its own port would be called somebody else's."""
    change(started=json.loads((home.pids / "triton.pid").read_text())["started"] + seconds)
    assert read_record(home).address == ADDRESS


@pytest.mark.parametrize("mark", ["another-boot:123", "0"])
def test_another_process_of_that_pid_is_not_taken_for_the_server(home, change, mark):
    change(mark=mark)
    assert read_record(home) is None


@pytest.mark.parametrize(("seconds", "found"), [(0, True), (1, True), (-1.5, True), (60, False)])
def test_a_record_from_before_there_were_marks_goes_by_the_time(home, change, seconds, found):
    started = json.loads((home.pids / "triton.pid").read_text())["started"]
    change(mark=None, started=started + seconds)
    assert (read_record(home) is not None) == found


def test_a_server_that_has_ended_is_not_found(home):
    home.pids.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        write_record(home, process.pid, ADDRESS)
        assert read_record(home).pid == process.pid
        process.communicate(b"\n")
    assert read_record(home) is None
    assert [path.name for path in home.pids.iterdir()] == ["triton.pid"]
    assert (home.pids / "triton.pid").stat().st_mode & 0o077 == 0, "it holds the token"
