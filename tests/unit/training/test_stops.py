"""A request to stop is heard wherever a run is, and costs at most a forward pass."""

import os
import signal

import pytest
from small_runs import are_equal, call_at_pass, small_run, weights_of
from tiny_model import make_tiny_base_model

from tasks.contracts.errors import TrainingStopped
from tasks.training.loop import checkpoints as checkpoints_module
from tasks.training.loop.interruption import listening
from tasks.training.loop.trainee import Trainee

VALIDATION = {"validation_rows": 4, "validations": 1, "patience": 0}
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def ask_to_stop(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def whole(tiny):
    run = small_run(tiny, **VALIDATION)
    run.run()
    return weights_of(run)


@pytest.mark.parametrize("number", SIGNALS)
def test_while_a_run_is_prepared_a_signal_ends_it_at_once(number):
    with pytest.raises(TrainingStopped, match="asked to stop while it was prepared"), listening():
        ask_to_stop(number)
        raise AssertionError("it went on")


@pytest.mark.parametrize(
    "settings",
    [{"objective": "dpo"}, {"method": "full", "ewc_weight": 1.0, "replay": "0" * 8}],
    ids=["margins at the start", "Fisher information"],
)
def test_what_is_computed_before_the_first_step_can_be_stopped(settings, tiny, monkeypatch):
    """Both take a forward pass for each of many rows."""
    original, passes = Trainee.answer_losses, []

    def answer_losses(trainee, examples):
        passes.append(len(examples))
        if len(passes) == 2:
            ask_to_stop()
        return original(trainee, examples)

    monkeypatch.setattr(Trainee, "answer_losses", answer_losses)
    with pytest.raises(TrainingStopped), listening() as interruption:
        small_run(tiny, None, interruption, **settings)
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("place", "after_passes"), [("its first step", 1), ("a later micro-batch", 9), ("a validation", 2)]
)
def test_in_the_loop_a_signal_saves_the_last_whole_step(place, after_passes, tiny, whole, tmp_path):
    passes = {True: 0, False: 0}

    def count(model, _):
        passes[model.training] += 1
        if passes[place != "a validation"] == after_passes:
            ask_to_stop()

    with listening() as interruption:
        run = small_run(tiny, tmp_path / "checkpoints", interruption, checkpoint_seconds=1_000, **VALIDATION)
        run.objective.trainee.transformer.register_forward_pre_hook(count)
        with pytest.raises(TrainingStopped) as stopped:
            run.run()
    assert f"step {run.progress.step} is kept" in str(stopped.value)
    assert passes[place != "a validation"] == after_passes, "the pass that was under way was the last"
    again = small_run(tiny, tmp_path / "checkpoints", **VALIDATION)
    again.resume()
    assert again.progress.step == run.progress.step
    again.run()
    assert [event["step"] for event in again.progress.told if event["event"] == "validation"] == [3, 6, 9]
    assert are_equal(weights_of(again), whole)


def test_a_signal_while_a_checkpoint_is_saved_waits_for_it(tiny, whole, tmp_path, monkeypatch):
    original = checkpoints_module.save_checkpoint
    saved = []

    def save(folder, checkpoint):
        saved.append(checkpoint.step)
        ask_to_stop()
        return original(folder, checkpoint)

    monkeypatch.setattr(checkpoints_module, "save_checkpoint", save)
    with listening() as interruption:
        run = small_run(tiny, tmp_path / "checkpoints", interruption, **VALIDATION)
        with pytest.raises(TrainingStopped, match="step 1 is kept"):
            run.run()
    assert saved == [1, 1]
    monkeypatch.undo()
    again = small_run(tiny, tmp_path / "checkpoints", **VALIDATION)
    again.resume()
    again.run()
    assert are_equal(weights_of(again), whole)


def test_a_signal_in_the_last_step_keeps_that_step(tiny, tmp_path):
    with listening() as interruption:
        run = small_run(tiny, tmp_path / "checkpoints", interruption, checkpoint_seconds=1_000)
        original = run.optimizer.step

        def step(rate):
            if run.progress.step == 8:
                ask_to_stop()
            return original(rate)

        run.optimizer.step = step
        with pytest.raises(TrainingStopped, match="step 9 is kept"):
            run.run()
    again = small_run(tiny, tmp_path / "checkpoints")
    again.resume()
    assert again.progress.step == 9
    assert are_equal(weights_of(again), weights_of(run))


def test_a_stop_that_cannot_be_saved_says_so(tiny, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("no directory")
    with listening() as interruption:
        run = small_run(tiny, blocked, interruption, checkpoint_seconds=1_000)
        call_at_pass(run, 4, ask_to_stop)
        with pytest.raises(TrainingStopped, match="its state could not be saved"):
            run.run()
