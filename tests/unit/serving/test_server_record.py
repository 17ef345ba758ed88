"""The record of the running Triton server is believed as long as its process lives."""

import json
import os

import pytest

from tasks.serving.server_record import read_record, write_record
from tasks.serving.triton_client import TritonAddress

ADDRESS = TritonAddress(8000, 8001, 8002, "token")


@pytest.mark.parametrize(("seconds", "found"), [(0, True), (1, True), (-1.5, True), (60, False)])
def test_a_step_of_the_clock_does_not_lose_the_server_and_another_process_is_not_taken_for_it(home, seconds, found):
    home.pids.mkdir(parents=True)
    write_record(home, os.getpid(), ADDRESS)
    record = json.loads((home.pids / "triton.pid").read_text())
    (home.pids / "triton.pid").write_text(json.dumps(record | {"started": record["started"] + seconds}))
    assert (read_record(home) is not None) == found
