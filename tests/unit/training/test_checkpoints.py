"""A checkpoint is complete, of this training and what was saved; any other is set aside and named."""

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_runs import are_equal, small_run, weights_of
from tiny_model import make_tiny_base_model

from tasks.contracts import worker
from tasks.contracts.errors import TrainingError
from tasks.contracts.store import MANIFEST, Store, write_manifest
from tasks.contracts.worker import WorkerOrder
from tasks.training.adapter import remove_abandoned, unfinished_trainings
from tasks.training.distributed.launch import explain_ends
from tasks.training.loop.checkpoints import checkpoints_in, digest_of_tensors
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.oom_killer import OomWatch, oom_kills


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def kept(tiny, tmp_path_factory):
    """The weights of a whole run, and its last two checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "training"
    run = small_run(tiny, folder)
    run.run()
    assert [path.name for path in checkpoints_in(folder)] == ["step-000009", "step-000008"]
    return weights_of(run), folder


@pytest.fixture
def said(monkeypatch):
    """What the training process says to its parent."""
    events = []

    def note(event, **facts):
        events.append({"event": event, **facts})

    for module in ("loop", "checkpoints", "progress"):
        monkeypatch.setattr(f"tasks.training.loop.{module}.say", note)
    return events


def truncate(checkpoint):
    with (checkpoint / "state.safetensors").open("r+b") as file:
        file.truncate(1_000)


def flip_a_byte(checkpoint):
    content = bytearray((checkpoint / "state.safetensors").read_bytes())
    content[-5] ^= 1
    (checkpoint / "state.safetensors").write_bytes(content)


def lose_the_manifest(checkpoint):
    (checkpoint / MANIFEST).unlink()


def lie_in_the_manifest(checkpoint):
    """The manifest vouches for weights that were changed after they were written down."""
    tensors = load_file(checkpoint / "state.safetensors")
    name = min(name for name in tensors if name.startswith("master."))
    tensors[name] += 1e-3
    rewrite(checkpoint, tensors=tensors)


def change_a_shape(checkpoint):
    tensors = load_file(checkpoint / "state.safetensors")
    name = min(name for name in tensors if name.startswith("master."))
    tensors[name] = tensors[name][:-1].clone()
    rewrite(checkpoint, tensors=tensors)


def lose_the_optimizers_shape(checkpoint):
    tensors = load_file(checkpoint / "state.safetensors")
    tensors["optimizer.0.exp_avg"] = tensors["optimizer.0.exp_avg"][:-1].clone()
    rewrite(checkpoint, tensors=tensors)


def lose_the_random_state(checkpoint):
    tensors = load_file(checkpoint / "state.safetensors")
    del tensors["random.cpu"]
    rewrite(checkpoint, tensors=tensors)


def be_of_another_training(checkpoint):
    rewrite(checkpoint, facts={"training": "another"})


def be_of_another_step(checkpoint):
    rewrite(checkpoint, facts={"step": 3})


def lose_the_progress(checkpoint):
    rewrite(checkpoint, facts={"progress": {}})


def be_no_json(checkpoint):
    (checkpoint / "state.json").write_text("[1, 2]")
    rewrite(checkpoint)


def rewrite(checkpoint, tensors=None, facts=None):
    """Change a checkpoint and give it a manifest that vouches for it."""
    if tensors is not None:
        save_file(tensors, checkpoint / "state.safetensors")
    if facts is not None:
        path = checkpoint / "state.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, {"kind": "checkpoint"})


DAMAGES = {
    truncate: "state.safetensors is missing or has another size",
    flip_a_byte: "state.safetensors has another sha256",
    lose_the_manifest: "it has no readable manifest",
    lie_in_the_manifest: "its weights have another digest than was written down",
    change_a_shape: "have the shape",
    lose_the_optimizers_shape: "its optimizer.0.exp_avg has",
    lose_the_random_state: "its state lacks random.cpu",
    be_of_another_training: "it is of another training, another",
    be_of_another_step: "it is of step 3",
    lose_the_progress: "its state has other numbers of progress",
    be_no_json: "it cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_named_and_the_one_before_is_used(damage, tiny, kept, said, tmp_path):
    weights, folder = kept
    folder = shutil.copytree(folder, tmp_path / "training")
    damage(folder / "step-000009")
    run = small_run(tiny, folder)
    run.resume()
    assert run.progress.step == 8
    (named,) = (event for event in said if event["event"] == "damaged_checkpoint")
    assert named["name"] == "step-000009"
    assert DAMAGES[damage] in named["damage"]
    assert Path(named["aside"]).is_dir()
    run.run()
    assert are_equal(weights_of(run), weights)


def test_without_a_sound_checkpoint_a_run_begins_anew(tiny, kept, said, tmp_path):
    weights, folder = kept
    folder = shutil.copytree(folder, tmp_path / "training")
    flip_a_byte(folder / "step-000009")
    lose_the_progress(folder / "step-000008")
    run = small_run(tiny, folder)
    run.resume()
    assert run.progress.step == 0
    assert [event["name"] for event in said] == ["step-000009", "step-000008"]
    run.run()
    assert are_equal(weights_of(run), weights)


def test_a_checkpoint_of_another_method_does_not_fit(tiny, kept, said, tmp_path):
    folder = shutil.copytree(kept[1], tmp_path / "training")
    run = small_run(tiny, folder, method="ia3")
    run.resume()
    assert run.progress.step == 0
    assert all("have the shape" in event["damage"] for event in said)


def test_what_is_resumed_is_what_was_saved_and_its_digest_proves_it(tiny, kept, said, tmp_path, monkeypatch):
    weights, folder = kept
    folder = shutil.copytree(folder, tmp_path / "training")
    run = small_run(tiny, folder)
    run.resume()
    assert said[0]["event"] == "resumed"
    assert said[0]["digest"] == digest_of_tensors(weights)
    steps = [event for event in said[1:] if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 10))
    assert all(step["again"] for step in steps)

    original = MasterOptimizer.set_masters

    def forget_one(optimizer, values):
        original(
            optimizer,
            {name: value * 0 if number == 0 else value for number, (name, value) in enumerate(values.items())},
        )

    monkeypatch.setattr(MasterOptimizer, "set_masters", forget_one)
    with pytest.raises(TrainingError, match="step 9 was resumed with other weights than were saved"):
        small_run(tiny, folder).resume()


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_training(tiny, kept, said, tmp_path):
    """A limit on the size of a file stands for the disk."""
    folder = tmp_path / "training"
    run = small_run(tiny, folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    failed = [event for event in said if event["event"] == "checkpoint_failed"]
    assert [event["step"] for event in failed] == list(range(1, 10))
    assert "File too large" in failed[0]["reason"]
    assert list(folder.iterdir()) == [], "nothing torn is left"
    assert are_equal(weights_of(run), kept[0])


def test_a_run_that_the_kernel_killed_goes_on_with_the_smaller_micro_batches_that_were_asked_for(
    tiny, kept, said, tmp_path
):
    folder = shutil.copytree(kept[1], tmp_path / "training")
    shutil.rmtree(folder / "step-000009")
    watch = OomWatch(folder)
    watch.note({"event": "start", "micro_batch_tokens": 38, "longest_tokens": 17})
    killed, failed = TrainingError("it was killed (SIGKILL)"), TrainingError("the loss at step 3 is nan")
    assert watch.after(killed) is killed, "by somebody else: nothing changes"
    watch._kills -= 1  # as if the kernel's counter had risen
    assert watch.after(failed) is failed, "the kernel killed a process of somebody else"
    assert not (folder / "micro_batch_tokens").exists()
    assert "the next attempt begins with micro-batches of 19 instead of 38 tokens" in str(watch.after(killed))
    run = small_run(tiny, folder)
    run.resume()
    assert (run.progress.step, run.progress.most_tokens) == (8, 19)
    assert said[-1]["event"] == "smaller"
    run.run()
    assert run.progress.told[-1]["micro_batch_tokens"] <= max(19, *run._lengths)
    again = small_run(tiny, folder)
    again.resume()
    assert sum(event["event"] == "smaller" for event in again.progress.told) <= 2


def test_a_single_row_that_the_kernel_killed_a_run_on_is_said_and_no_smaller_attempt_is_promised(tmp_path):
    watch, killed = OomWatch(tmp_path), TrainingError("it was killed (SIGKILL)")
    watch._kills -= 1
    watch.note({"event": "start", "micro_batch_tokens": 60, "longest_tokens": 40})
    assert "begins with micro-batches of 40 instead of 60 tokens" in str(watch.after(killed)), "not of 30: a row has 40"
    watch.note({"event": "smaller", "to_tokens": 40})
    said = str(watch.after(killed))
    assert "on a single row of 40 tokens: lower training.max_length_tokens, or set" in said
    assert "next attempt" not in said
    assert (tmp_path / "micro_batch_tokens").read_text() == "40"


@pytest.mark.parametrize("several", [False, True])
def test_a_killed_process_is_told_from_one_that_failed_by_what_its_parent_says(several, tmp_path):
    """In the very words of the parent of one process, and of the launcher of several."""
    order = WorkerOrder("tasks.training.process", {}, tmp_path / "log", TrainingError, "lower it")
    said = explain_ends([(9, 1, -9)], 2) if several else worker._explain_exit(-9, order, 0)
    watch = OomWatch(tmp_path / "checkpoints")
    watch.note({"event": "start", "micro_batch_tokens": 60, "longest_tokens": 20})
    watch._kills -= 1
    assert "begins with micro-batches of 30" in str(watch.after(TrainingError(said)))


def test_the_kernels_counter_is_read_where_there_is_one(tmp_path):
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\noom_kill_other 9\n")
    assert oom_kills(tmp_path / "vmstat") == 3
    assert oom_kills(tmp_path / "nothing") == 0


def test_checkpoints_that_nobody_went_on_with_are_removed(tmp_path):
    store = Store(tmp_path)
    for name, age in (("old", 31), ("new", 1)):
        checkpoint = tmp_path / ".checkpoints" / name / "step-000001"
        checkpoint.mkdir(parents=True)
        for path in (checkpoint, checkpoint.parent):
            os.utime(path, (1_000_000_000 - age * 86_400,) * 2)
    (tmp_path / ".checkpoints" / "empty").mkdir()
    remove_abandoned(store, 1_000_000_000 - 30 * 86_400)
    assert [path.name for path in unfinished_trainings(store)] == ["empty", "new"]
