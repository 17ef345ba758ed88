"""A run that was killed anywhere and started again ends with the weights of one that never was, bit by bit."""

import random

import pytest
from small_runs import Killed, are_equal, kill_at_pass, small_run, weights_of
from tiny_model import make_tiny_base_model

from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.training.loop import checkpoints as checkpoints_module
from tasks.training.loop import optimizer as optimizer_module
from tasks.training.loop.interruption import Interruption
from tasks.training.loop.trainee import Place

EARLY = {"validation_rows": 4, "validations": 3, "patience": 2}
RUNS = {
    "lora": {},
    "full": {"method": "full", "learning_rate": 1e-3},
    "prefix": {"method": "prefix"},
    "dpo": {"objective": "dpo"},
    "distillation": {"objective": "distillation", "teacher": "dir:x"},
    "pissa": {"method": "pissa"},
    "validation": {**EARLY, "patience": 0},
    "early stopping": {**EARLY, "learning_rate": 0.1, "epochs": 10},
    "consolidation": {"method": "full", "learning_rate": 1e-3, "ewc_weight": 100.0, "replay": "0" * 8},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_at_any_forward_pass_ends_with_the_same_weights(name, tiny, tmp_path):
    settings = RUNS[name]
    whole = small_run(tiny, **settings)
    passes = kill_at_pass(whole, 0)
    whole.run()
    expected, told = weights_of(whole), whole.progress.told
    draw, kills, resumed_from = random.Random(name), 0, set()
    while True:
        run = small_run(tiny, tmp_path / "checkpoints", **settings)
        run.resume()
        resumed_from.add(run.progress.step)
        kill_at_pass(run, draw.randint(1, passes[0]) if kills < 2 else 0)
        try:
            run.run()
        except Killed:
            kills += 1
        else:
            break
    assert kills
    assert len(resumed_from) > 1
    assert are_equal(weights_of(run), expected)
    assert [untimed(event) for event in run.progress.told] == [untimed(event) for event in told]


def untimed(event):
    return {key: event[key] for key in event if key not in ("seconds", "tokens_per_second", "memory_bytes")}


def test_early_stopping_keeps_the_best_weights_also_across_a_resumption(tiny, tmp_path):
    run = small_run(tiny, tmp_path / "checkpoints", **RUNS["early stopping"])
    run.run()
    losses = [event["loss"] for event in run.progress.told if event["event"] == "validation"]
    assert run.progress.step < len(run.schedule), "it must have ended early"
    assert min(losses[-2:]) > min(losses), "the last two were worse than the best"
    assert run.validation.loss(Interruption()) == pytest.approx(min(losses), abs=1e-6)
    again = small_run(tiny, tmp_path / "checkpoints", **RUNS["early stopping"])
    again.resume()
    assert again.progress.step > 0
    again.run()
    assert are_equal(weights_of(again), weights_of(run))


@pytest.mark.parametrize("moment", ["save_file", "write_jsonl", "write_manifest"])
def test_a_run_that_was_killed_while_it_saved_goes_on_from_the_checkpoint_before(moment, tiny, tmp_path, monkeypatch):
    import safetensors.torch

    whole = small_run(tiny)
    whole.run()
    folder = tmp_path / "checkpoints"
    first = small_run(tiny, folder)
    place = safetensors.torch if moment == "save_file" else checkpoints_module
    original, calls = getattr(place, moment), []

    def torn(*arguments, **settings):
        calls.append(moment)
        if len(calls) == 5:
            raise Killed
        return original(*arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(place, moment, torn)
        # A killed process cleans nothing up.
        patched.setattr(checkpoints_module.shutil, "rmtree", lambda path, ignore_errors=False: None)
        with pytest.raises(Killed):
            first.run()
    assert len(list(folder.glob(".step-*"))) == 1
    again = small_run(tiny, folder)
    again.resume()
    assert again.progress.step == 4
    again.run()
    assert list(folder.glob(".step-*")) == []
    assert are_equal(weights_of(again), weights_of(whole))


def test_a_run_that_was_stopped_says_where_it_goes_on_and_goes_on_there(tiny, tmp_path):
    whole = small_run(tiny)
    passes = kill_at_pass(whole, 0)
    whole.run()
    interruption = Interruption()
    stopped = small_run(tiny, tmp_path / "checkpoints", interruption, checkpoint_seconds=1_000)
    kill = passes[0] // 2

    def ask(*_):
        nonlocal kill
        kill -= 1
        interruption.requested = kill <= 0

    stopped.objective.trainee.transformer.register_forward_pre_hook(ask)
    with pytest.raises(TrainingStopped, match=r"step (\d+) is kept, and the same run goes on from there"):
        stopped.run()
    again = small_run(tiny, tmp_path / "checkpoints")
    again.resume()
    assert again.progress.step == stopped.progress.step > 0
    again.run()
    assert are_equal(weights_of(again), weights_of(whole))


def test_a_finished_run_that_was_killed_before_it_saved_its_adapter_takes_no_step_again(tiny, tmp_path):
    first = small_run(tiny, tmp_path / "checkpoints")
    first.run()
    again = small_run(tiny, tmp_path / "checkpoints")
    again.resume()
    passes = kill_at_pass(again, 0)
    again.run()
    assert passes == [0]
    assert are_equal(weights_of(again), weights_of(first))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_qlora_goes_on_with_the_state_of_its_paged_optimizer(tiny, tmp_path, monkeypatch):
    """On a CPU bitsandbytes pages nothing; what it keeps, and how it gives it out, is the same."""
    from bitsandbytes.optim import PagedAdamW

    made = []

    def state_buffer(optimizer, master, dtype):
        made.append(original(optimizer, master, dtype=dtype))
        return made[-1]

    original = PagedAdamW.get_state_buffer
    monkeypatch.setattr(PagedAdamW, "get_state_buffer", state_buffer)
    monkeypatch.setattr(optimizer_module, "_adamw", lambda masters, training, _: PagedAdamW(masters, lr=1.0))
    settings = {"method": "qlora", "precision": "bf16"}
    whole = small_run(tiny, **settings)
    whole.run()
    first = small_run(tiny, tmp_path / "checkpoints", **settings)
    kill_at_pass(first, 20)
    with pytest.raises(Killed):
        first.run()
    again = small_run(tiny, tmp_path / "checkpoints", **settings)
    made.clear()
    again.resume()
    assert 0 < again.progress.step < len(again.schedule)
    state = again.optimizer._optimizer.state[again.optimizer.masters[0]]
    assert state["step"] == again.progress.step
    assert any(buffer is state["state1"] for buffer in made), "bitsandbytes made it, as paged as any that it makes"
    again.run()
    assert are_equal(weights_of(again), weights_of(whole))


def test_a_checkpoint_of_another_precision_or_device_is_refused_and_stays(tiny, tmp_path):
    """A GPU that is gone for a moment is no reason to give its hours up."""
    import torch

    folder = tmp_path / "checkpoints"
    first = small_run(tiny, folder)
    first.run()
    kept = checkpoints_module.checkpoints_in(folder)
    elsewhere = small_run(tiny, folder, precision="bf16")
    said = "step 9 of this training was computed on cpu in float32, and this process computes on cpu in bfloat16; go on"
    with pytest.raises(TrainingError, match=f"{said} where it was begun, or delete {folder} to begin anew"):
        elsewhere.resume()
    on_a_gpu = small_run(tiny, folder)
    on_a_gpu.objective.trainee.place = Place(torch.device("cuda"), torch.float32)
    with pytest.raises(TrainingError, match="computed on cpu in float32, and this process computes on cuda in float32"):
        on_a_gpu.resume()
    assert checkpoints_module.checkpoints_in(folder) == kept


def test_pissa_does_not_go_on_with_another_decomposition_than_it_began_with(tiny, tmp_path):
    """With another seed its random part is another one, as it may be on another machine."""
    folder = tmp_path / "checkpoints"
    small_run(tiny, folder, method="pissa").run()
    small_run(tiny, folder, method="pissa").resume()
    with pytest.raises(TrainingError, match=r"step 9 .* with other first matrices of PiSSA than this process finds"):
        small_run(tiny, folder, method="pissa", seed=9).resume()
    assert len(checkpoints_module.checkpoints_in(folder)) == 2
