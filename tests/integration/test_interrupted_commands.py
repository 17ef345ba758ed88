"""Ctrl+C in a terminal, where the kernel sends SIGINT to every process of the command, its Prefect server too."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from loop_under_test import Loop

from tasks.serving.tritonserver import stop_tritonserver

pytestmark = pytest.mark.integration

ENDLESS = ["training.epochs=5000", "training.patience=0", "training.checkpoint_seconds=1000", "data.eval_rows=5"]
ENDLESS += ["gate.min_examples=2", "serving.engine=transformers"]


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A home where nothing was started with `up`."""
    loop = Loop(tmp_path_factory.mktemp("interrupted"))
    yield loop
    stop_tritonserver(loop.home)


@contextmanager
def training_for_ever(loop, command, settings=()):
    """Start a command as the leader of a process group, which a terminal's Ctrl+C is for, and wait for its training."""
    said = loop.folder / f"{command}.log"
    line = [str(Path(sys.executable).parent / "llm-retrain"), command, "--config", str(loop.settings_path)]
    line += [part for setting in (*ENDLESS, *settings) for part in ("--set", setting)]
    with said.open("w") as told:
        process = subprocess.Popen(
            line, env=loop.environment, cwd=loop.folder, stdout=told, stderr=told, start_new_session=True
        )
    try:
        while not trains(process):
            assert process.poll() is None, said.read_text()
            time.sleep(0.3)
        time.sleep(5)  # it has begun
        yield process, said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def trains(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "tasks.training.process" in child.cmdline():
                return True
    return False


def flow_states(loop):
    with sqlite3.connect(loop.home.prefect / "prefect.db") as database:
        return {state for (state,) in database.execute("select state_type from flow_run")}


@pytest.mark.parametrize(
    ("command", "settings"),
    [("run", ()), ("sweep", ("training.validation_rows=4", "sweep.trials=2", "sweep.space={rank: [4, 8]}"))],
)
def test_ctrl_c_in_a_terminal_stops_a_command_within_seconds_and_says_so(loop, command, settings):
    with training_for_ever(loop, command, settings) as (process, said):
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130, said.read_text()
        assert time.monotonic() - asked < 20
        text = said.read_text()
        assert "stopped; run the same command again to go on from what is finished" in text
        assert "Traceback" not in text and "EventsWorker" not in text
    assert flow_states(loop) <= {"CRASHED", "FAILED"}, "nothing is left that Prefect calls running"
    status = loop.json("status")
    assert status["last_runs"][0]["verdict"] == "stopped"


def test_a_run_whose_process_was_killed_is_settled_by_the_next_command(loop):
    with training_for_ever(loop, "run") as (process, _):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "RUNNING" in flow_states(loop)
    done = loop.command("monitor")
    assert "lost its process; marked as crashed" in done.stderr
    assert "RUNNING" not in flow_states(loop)
