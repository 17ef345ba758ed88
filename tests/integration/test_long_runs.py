"""Training processes that are killed and stopped for real, through the function that the flow calls."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import list_versions
from tasks.training.adapter import TrainingJob, checkpoints_of, train_adapter, training_events
from tasks.training.loop.checkpoints import checkpoints_in
from tasks.training.steps import train_adapter as train_step

pytestmark = pytest.mark.integration

TRAINING = TrainingSection(
    rank=4,
    dropout=0.1,
    learning_rate=5e-3,
    epochs=8,
    batch_rows=4,
    micro_batch_tokens=90,
    validation_rows=4,
    validations=1,
    patience=6,
    checkpoint_seconds=0,
    device="cpu",
    precision="fp32",
)
STEPS = 24
ENDLESS = {"epochs": 5_000.0, "patience": 0, "checkpoint_seconds": 1e6}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The same for every process of this file, as the sums of two threads differ in their last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {
            "id": f"{n:064d}",
            "messages": [
                {"role": "user", "content": f"Say {' '.join(words[: n % 10 + 1])}."},
                {"role": "assistant", "content": " ".join(words[n % 7 :: 2])},
            ],
        }
        for n in range(16)
    ]
    write_jsonl(folder / "train.jsonl", rows)
    base = BaseModelRef(make_tiny_base_model(tmp_path_factory.mktemp("tiny")), digest="base", source="dir:tiny")
    dataset = DatasetRef(folder, "rows", rows_read=16, train_rows=16, eval_rows=0, rejected={}, eval_digest="none")
    return TrainingJob(base, dataset, TRAINING)


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    store = Store(folder / "store")
    adapter = train_adapter(job, store, folder / "log")
    assert not checkpoints_of(store, job.store_inputs()).exists(), "a finished training needs no checkpoints"
    return adapter


def training_process():
    (child,) = (
        child
        for child in psutil.Process(os.getpid()).children(recursive=True)
        if "tasks.training.process" in " ".join(child.cmdline())
    )
    return child


class Killer:
    """Kills the training process once, after a step and a while, or in the middle of the next checkpoint."""

    def __init__(self, step, seconds=None, folder=None):
        self.step, self.seconds, self.folder, self.done = step, seconds, folder, False

    def __call__(self, event):
        if self.done or event["event"] != "step" or event.get("again") or event["step"] < self.step:
            return
        self.done = True
        process = training_process()
        deadline = time.monotonic() + 10
        if self.folder is None:
            time.sleep(self.seconds)
        else:
            while not any(self.folder.glob(".step-*/*")) and time.monotonic() < deadline:
                pass
        process.kill()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_adapter(job, uninterrupted, tmp_path, caplog):
    caplog.set_level("INFO")
    store, log_path = Store(tmp_path / "store"), tmp_path / "log"
    folder = checkpoints_of(store, job.store_inputs())
    draw, resumed = random.Random(7), []
    for killer in (Killer(5, folder=folder), Killer(12, seconds=draw.random() / 20)):
        with pytest.raises(TrainingError, match="SIGKILL"):
            train_adapter(job, store, log_path, killer)
    adapter = train_adapter(job, store, log_path, lambda e: resumed.append(e) if e["event"] == "resumed" else None)
    assert adapter.digest == uninterrupted.digest
    assert resumed[0]["step"] >= 11
    assert f"Training resumed from step {resumed[0]['step']} of {STEPS}" in caplog.text
    steps = [event["step"] for event in training_events(adapter) if event["event"] == "step"]
    assert steps == list(range(1, steps[-1] + 1)), "every step once, although some were told again"
    assert not folder.exists()


CALLER = """
import logging, sys
from pathlib import Path
from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import list_versions
from tasks.training.adapter import TrainingJob, train_adapter
logging.basicConfig(level=logging.INFO)
base, rows, store, log, training = sys.argv[1:]
dataset = DatasetRef(Path(rows), "rows", 16, 16, 0, {}, "none")
job = TrainingJob(BaseModelRef(Path(base), "base", "dir:tiny"), dataset, TrainingSection.model_validate_json(training))
train_adapter(job, Store(Path(store)), Path(log), lambda event: print(event["event"], flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_parent_that_ends_save_and_stop_within_seconds(number, job, tmp_path):
    """SIGINT reaches the parent, which says what the training said; SIGTERM ends it, and the kernel tells its child."""
    endless = TrainingJob(
        job.base, job.dataset, TRAINING.model_copy(update={"epochs": 5_000.0, "patience": 0, "checkpoint_seconds": 1e6})
    )
    store = Store(tmp_path / "store")
    arguments = [str(part) for part in (job.base.path, job.dataset.path, store.root, tmp_path / "log")]
    parent = subprocess.Popen(
        [sys.executable, "-c", CALLER, *arguments, endless.training.model_dump_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout is not None
    for _ in range(30):
        parent.stdout.readline()
    (child,) = psutil.Process(parent.pid).children(recursive=True)
    asked = time.monotonic()
    parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    psutil.wait_procs([child], timeout=30)
    assert time.monotonic() - asked < 20
    assert not child.is_running()
    (kept,) = checkpoints_in(checkpoints_of(store, endless.store_inputs()))
    step = int(kept.name.removeprefix("step-"))
    assert step > 10
    if number == signal.SIGINT:
        assert f"the training was asked to stop; step {step} is kept, and the same run goes on from there" in said


def test_a_training_process_that_is_told_to_stop_is_an_error_that_says_where_it_goes_on(job, tmp_path):
    def stop(event):
        if event["event"] == "step" and event["step"] == 3:
            training_process().terminate()

    store = Store(tmp_path / "store")
    with pytest.raises(TrainingStopped, match=r"step \d+ is kept, and the same run goes on from there"):
        train_adapter(job, store, tmp_path / "log", stop)
    assert list(store.entries("adapter")) == []


def test_a_loss_that_is_not_a_number_fails_the_run_and_nothing_is_registered(job, home):
    import torch
    from safetensors.torch import load_file, save_file

    broken = make_tiny_base_model(home.root / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    config, store = RetrainConfig(training=TRAINING), Store(home.store)
    base = BaseModelRef(broken, digest="broken", source="dir:broken")
    with (
        pytest.raises(TrainingError, match=r"loss at step 1 is nan; lower training\.learning_rate"),
        tracked_run(config, home, "test", {}) as run,
    ):
        train_step.fn(TrainingJob(base, job.dataset, TRAINING), home, store, run.log_training)
    ended = run.client.get_run(run.run_id)
    assert ended.info.status == "FAILED"
    assert "loss at step 1 is nan" in ended.data.tags["llm_retrain.error"]
    assert list(store.entries("adapter")) == []
    assert list_versions(config.registry, home) == []


FLOW = """
import sys
from pathlib import Path
from prefect import flow
from flows.log_lines import record_log_lines
from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.training.adapter import TrainingJob
from tasks.training.steps import train_adapter
base, rows, root, training = sys.argv[1:]

@flow
def training_alone():
    record_log_lines()
    home = Home(Path(root))
    dataset = DatasetRef(Path(rows), "rows", 16, 16, 0, {}, "none")
    config = RetrainConfig(training=TrainingSection.model_validate_json(training))
    print("begins", flush=True)
    job = TrainingJob(BaseModelRef(Path(base), "base", "dir:tiny"), dataset, config.training)
    train_adapter(job, home, Store(home.store),
                  lambda event: print(event["event"], flush=True))

training_alone()
"""


def test_a_prefect_run_that_is_told_to_stop_saves_first_and_does_not_stay_running(job, tmp_path):
    """SIGTERM is what a Prefect worker sends to cancel a run, 30 seconds before it kills."""
    endless = TrainingJob(job.base, job.dataset, TRAINING.model_copy(update=ENDLESS))
    arguments = [str(part) for part in (job.base.path, job.dataset.path, tmp_path / "home")]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "llm_retrain",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    (tmp_path / "training_alone.py").write_text(FLOW)
    environment.pop("PREFECT_API_URL", None)
    said, events = tmp_path / "said", tmp_path / "events"
    line = [sys.executable, str(tmp_path / "training_alone.py"), *arguments, endless.training.model_dump_json()]
    with said.open("w") as errors, events.open("w") as told:  # files: Prefect's temporary server would hold pipes open
        run = subprocess.Popen(line, stdout=told, stderr=errors, env=environment, start_new_session=True)
    try:
        while "step" not in events.read_text().split():
            assert run.poll() is None, said.read_text()
            time.sleep(0.2)
        asked = time.monotonic()
        run.terminate()
        run.wait(timeout=100)
        assert time.monotonic() - asked < 30
    finally:
        with suppress(ProcessLookupError):  # its temporary server, which a SIGTERM leaves behind
            os.killpg(run.pid, signal.SIGKILL)
    (kept,) = checkpoints_in(checkpoints_of(Store(tmp_path / "home" / "store"), endless.store_inputs()))
    assert f"step {int(kept.name.removeprefix('step-'))} is kept" in said.read_text()
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
        (state,) = database.execute("select state_name from flow_run").fetchone()
    assert state == "Crashed"
