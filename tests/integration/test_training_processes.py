"""Several processes train what one trains: the same losses and weights, and they stop, fail and go on as one."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.training.adapter import TrainingJob, train_adapter
from tasks.training.distributed.joining import LAUNCHER, ON_CPU
from tasks.training.distributed.node import join_training
from tasks.training.process import run as train_here

pytestmark = pytest.mark.integration

WORDS = "return the sum of two numbers and open the file to read all of its lines into a list".split(" ")  # noqa: SIM905

FAST = {
    "rank": 3,  # of which one process of two holds two rows
    "alpha": 8,
    "learning_rate": 5e-3,
    "epochs": 2,
    "batch_rows": 5,
    "micro_batch_tokens": 120,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return BaseModelRef(make_tiny_base_model(tmp_path_factory.mktemp("tiny")), digest="base", source="dir:tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Sixteen rows of very different lengths: the last step of an epoch has fewer rows than processes."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [
        {
            "id": f"{n:064d}",
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": " ".join(WORDS[: 1 + (n * 7) % len(WORDS)])},
            ],
            "rejected": " ".join(WORDS[n % 5 : 8]),
        }
        for n in range(16)
    ]
    write_jsonl(folder / "train.jsonl", rows)
    return DatasetRef(folder, "rows", rows_read=16, train_rows=16, eval_rows=0, rejected={}, eval_digest="none")


CASES = {
    "lora": {"validation_rows": 3},
    "lora, activations computed again": {"activation_checkpointing": True},
    "dora in bf16": {"method": "dora", "precision": "bf16"},
    "ia3": {"method": "ia3", "learning_rate": 0.05},
    "dpo": {"objective": "dpo"},
    "full": {"method": "full", "learning_rate": 1e-3, "validation_rows": 3, "validations": 2, "patience": 9},
}
UNSHARDED = {
    "pissa": {"method": "pissa"},
    "prefix": {"method": "prefix", "learning_rate": 0.1},
    "ewc": {"method": "full", "learning_rate": 1e-3, "replay": "0123456789", "ewc_weight": 10.0},
    "new tokens": {"new_tokens": ("return", "file")},
}
ALL = [
    *((name, settings, sharding) for name, settings in CASES.items() for sharding in ("none", "fsdp")),
    *((name, settings, "none") for name, settings in UNSHARDED.items()),
]


def order_of(base, dataset, out, settings):
    training = TrainingSection(**{**FAST, **settings})
    job = TrainingJob(base, dataset, training, replay=dataset if training.replay else None)
    return {**job.order(out / "adapter", None), "events": str(out / "events.jsonl")}


@pytest.fixture(scope="module")
def trained_by_two(base, dataset, tmp_path_factory):
    """Train all cases in two processes that are started once; return each one's folder."""
    folder, orders, places = tmp_path_factory.mktemp("two"), [], {}
    for name, settings, sharding in ALL:
        places[name, sharding] = folder / str(len(orders))
        places[name, sharding].mkdir()
        several = {**settings, "processes": 2, "sharding": sharding}
        orders.append(order_of(base, dataset, places[name, sharding], several))
    places["overflow"] = folder / "overflow"
    places["overflow"].mkdir()
    orders.append({**order_of(base, dataset, places["overflow"], {"processes": 2}), "overflows": [1]})
    places["not a number"] = folder / "not a number"
    places["not a number"].mkdir()
    orders.append(order_of(base, dataset, places["not a number"], {"learning_rate": 1e30, "processes": 2}))
    (folder / "orders.json").write_text(json.dumps(orders))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    as_launched = {LAUNCHER: str(os.getpid()), ON_CPU: "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    script = Path(__file__).with_name("trains_as_one_of_several.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder / "orders.json")],
            env={**os.environ, **meeting, **as_launched, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=(folder / f"log{rank}").open("w"),
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0, 0], (folder / "log0").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return places


@pytest.fixture(scope="module")
def trained_by_one(base, dataset, tmp_path_factory):
    """Train a case in this process, once; return its folder."""
    done = {}

    def train(name, settings):
        if name not in done:
            done[name] = tmp_path_factory.mktemp("one")
            order = order_of(base, dataset, done[name], settings)
            done[name].joinpath("events.jsonl").write_text("")
            with said_to(done[name] / "events.jsonl"):
                train_here(order)
        return done[name]

    return train


@contextmanager
def said_to(path):
    from tasks.contracts import worker

    with path.open("w", buffering=1) as events:
        worker._events.append(events)
        try:
            yield
        finally:
            worker._events.remove(events)


@pytest.mark.parametrize(
    ("name", "settings", "sharding"), ALL, ids=[f"{name}, {sharding}" for name, _, sharding in ALL]
)
def test_two_processes_train_what_one_trains(name, settings, sharding, trained_by_two, trained_by_one):
    assert_same_training(trained_by_two[name, sharding], trained_by_one(name, settings), settings.get("precision"))


def test_all_processes_take_smaller_parts_when_one_runs_out_of_memory(trained_by_two):
    folder = trained_by_two["overflow"]
    events = list(read_jsonl(folder / "events.jsonl"))
    assert [event["step"] for event in events if event["event"] == "smaller"] == [2]
    undisturbed = list(read_jsonl(trained_by_two["lora, activations computed again", "none"] / "events.jsonl"))
    assert losses(events) == pytest.approx(losses(undisturbed), rel=1e-4)


def test_the_others_wait_for_a_process_that_writes_a_large_checkpoint(trained_by_two):
    """NCCL's own 10 minutes are fewer than a checkpoint of many gigabytes may take, with its digests."""
    folder = trained_by_two["overflow"].parent
    assert [float((folder / f"timeout{rank}").read_text()) for rank in range(2)] == [7200, 7200]


def test_a_loss_that_is_not_a_number_on_one_process_ends_all_with_one_sentence(trained_by_two):
    *_, last = read_jsonl(trained_by_two["not a number"] / "events.jsonl")
    assert last["event"] == "error"
    assert "lower training.learning_rate" in last["message"]
    assert not (trained_by_two["not a number"] / "adapter").exists()


def losses(events, kind="step"):
    return [event["loss"] for event in events if event["event"] == kind]


def assert_same_training(several, one, precision):
    import torch
    from safetensors.torch import load_file

    tolerance = 1e-4 if precision is None else 2e-2
    said, said_by_one = (list(read_jsonl(folder / "events.jsonl")) for folder in (several, one))
    assert losses(said_by_one)[-1] < losses(said_by_one)[0]
    assert losses(said) == pytest.approx(losses(said_by_one), rel=tolerance)
    assert losses(said, "validation") == pytest.approx(losses(said_by_one, "validation"), rel=tolerance)
    started, started_by_one = (next(e for e in events if e["event"] == "start") for events in (said, said_by_one))
    assert started["trainable_parameters"] == started_by_one["trainable_parameters"]
    files = sorted(path.relative_to(one / "adapter") for path in (one / "adapter").rglob("*.*"))
    assert sorted(path.relative_to(several / "adapter") for path in (several / "adapter").rglob("*.*")) == files
    for file in files:
        if file.suffix == ".safetensors":
            ours, theirs = load_file(several / "adapter" / file), load_file(one / "adapter" / file)
            assert ours.keys() == theirs.keys()
            for key, weight in ours.items():
                close = {"rtol": 1e-3, "atol": 5e-5} if precision is None else {"rtol": 0.1, "atol": 2e-2}
                torch.testing.assert_close(weight, theirs[key], **close, msg=lambda text, key=key: f"{key}: {text}")
        else:
            assert (several / "adapter" / file).read_bytes() == (one / "adapter" / file).read_bytes(), file


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


LONG = {**FAST, "epochs": 400, "checkpoint_seconds": 300}


def train(base, dataset, folder, listener=lambda event: None, **settings):
    job = TrainingJob(base, dataset, TrainingSection(**{**LONG, **settings}))
    return train_adapter(job, Store(folder / "store"), folder / "training.log", listener)


def ranks_of(launcher):
    return [child for child in launcher.children() if "tasks.training.process" in child.cmdline()]


def launcher_of_this_test():
    (launcher,) = (
        child for child in psutil.Process().children() if "tasks.training.distributed.launch" in child.cmdline()
    )
    return launcher


class WhenStep:
    """Acts once, at a step, and remembers what was said."""

    def __init__(self, step, act):
        self.step, self.act, self.events = step, act, []

    def __call__(self, event):
        self.events.append(event)
        if event["event"] == "step" and event["step"] == self.step:
            self.act()


def test_a_stop_reaches_every_process_and_one_process_goes_on_from_there(base, dataset, tmp_path):
    stop = WhenStep(3, lambda: launcher_of_this_test().terminate())
    with pytest.raises(TrainingStopped, match=r"step (\d+) is kept"):
        train(base, dataset, tmp_path, stop, processes=2, sharding="fsdp", method="full")
    *_, saved = (event for event in stop.events if event["event"] != "error")
    assert saved["event"] == "checkpoint"
    going_on = WhenStep(saved["step"] + 2, lambda: ranks_of(psutil.Process())[0].terminate())
    with pytest.raises(TrainingStopped):
        train(base, dataset, tmp_path, going_on, processes=1, method="full")
    assert next(event for event in going_on.events if event["event"] == "resumed")["step"] == saved["step"]
    steps = [event["step"] for event in going_on.events if event["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("sharding", "validation"),
    [("none", {}), ("fsdp", {"validation_rows": 3, "validations": 3})],
    ids=["whole, in a step", "sharded, most likely in a validation"],
)
def test_two_processes_go_on_where_one_was_and_all_stop_if_only_the_second_is_asked(
    sharding, validation, base, dataset, tmp_path
):
    settings = {"method": "full", **validation}
    first = WhenStep(3, lambda: ranks_of(psutil.Process())[0].terminate())
    with pytest.raises(TrainingStopped, match=r"step (\d+) is kept"):
        train(base, dataset, tmp_path, first, processes=1, **settings)
    step = next(event for event in first.events if event["event"] == "checkpoint")["step"]

    def ask_the_second():
        next(each for each in ranks_of(launcher_of_this_test()) if each.environ()["RANK"] == "1").terminate()

    both = WhenStep(step + 3, ask_the_second)
    with pytest.raises(TrainingStopped, match=r"step (\d+) is kept"):
        train(base, dataset, tmp_path, both, processes=2, sharding=sharding, **settings)
    (resumed,) = (event["step"] for event in both.events if event["event"] == "resumed")
    (kept,) = (event["step"] for event in both.events if event["event"] == "checkpoint")
    assert resumed == step
    assert step + 3 <= kept < step + 100
    told = [event["step"] for event in both.events if event["event"] == "step"]
    assert told == list(range(1, kept + 1))


def test_a_killed_process_ends_all_with_one_sentence_that_names_it(base, dataset, tmp_path):
    processes = []

    def kill_the_second():
        processes.extend(ranks_of(launcher_of_this_test()))
        next(each for each in processes if each.environ()["RANK"] == "1").kill()

    with pytest.raises(
        TrainingError, match=r"^process 1 of 2 was killed \(SIGKILL\), most often because memory ran out"
    ):
        train(base, dataset, tmp_path, WhenStep(2, kill_the_second), processes=2)
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)


def test_processes_end_when_their_launcher_is_killed(base, dataset, tmp_path):
    processes = []

    def kill_the_launcher():
        launcher = launcher_of_this_test()
        processes.extend(ranks_of(launcher))
        launcher.kill()

    with pytest.raises(TrainingError):
        train(base, dataset, tmp_path, WhenStep(2, kill_the_launcher), processes=2)
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=60)[1] == []


def test_two_machines_train_what_one_trains_and_the_second_needs_no_rows(base, dataset, tmp_path, trained_by_one):
    settings = {"nodes": 2, "processes": 1, "main_address": "127.0.0.1", "main_port": free_port(), "epochs": 2}
    failures = []

    def join():
        try:
            elsewhere = base.__class__(make_tiny_base_model(tmp_path / "elsewhere"), base.digest, base.source)
            join_training(TrainingSection(**{**LONG, **settings}), 1, elsewhere, tmp_path / "second.log")
        except Exception as error:
            failures.append(error)

    second = threading.Thread(target=join)
    second.start()
    events = []
    train(base, dataset, tmp_path, events.append, **settings)
    second.join(60)
    assert failures == []
    one = trained_by_one("lora, activations computed again", CASES["lora, activations computed again"])
    assert losses(events) == pytest.approx(losses(list(read_jsonl(one / "events.jsonl"))), rel=1e-4)
