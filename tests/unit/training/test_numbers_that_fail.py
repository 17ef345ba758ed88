"""Losses and gradients that are no numbers, fp16, memory that runs out, and steps in parts."""

import math
import resource
from pathlib import Path

import pytest
from small_runs import SMALL, are_equal, call_at_pass, small_run, weights_of
from tiny_model import make_tiny_base_model

from tasks.contracts.errors import TrainingError
from tasks.training.loop.examples import Example
from tasks.training.loop.memory import ran_out_of_memory

PARTS = {"one batch": 0, "micro-batches": 60, "single rows": 1}
OBJECTIVES = {
    "sft": {},
    "dpo": {"objective": "dpo"},
    "distillation": {"objective": "distillation", "teacher": "dir:x", "temperature": 2.0},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


def gradients_of(run, number=0):
    """Return the loss and the gradients of a step, which is not taken."""
    run.objective.trainee.transformer.train()
    loss = run._gradients(number)
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in run.objective.trainee.trained_parameters().items()
        if parameter.grad is not None
    }
    run.optimizer.drop_gradients()
    return loss, gradients


def apart(first, second):
    """Return the largest difference of two sets of gradients."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_has_the_same_gradient_however_its_unequal_rows_are_divided(objective, tiny):
    import torch

    settings = {"method": "full", "dropout": 0.0, **OBJECTIVES[objective]}
    found = {}
    for name, tokens in PARTS.items():
        run = small_run(tiny, micro_batch_tokens=tokens, **settings)
        with torch.no_grad():  # a step away from the start, where dpo is symmetric and a teacher agrees
            for number, master in enumerate(run.optimizer.masters):
                master += 0.01 * math.cos(number)
        found[name] = gradients_of(run)
        lengths = [run._lengths[row] for row in run.schedule[0]]
        assert len(set(lengths)) > 1
        expected = {"one batch": 1, "single rows": 4}.get(name)
        assert expected is None or len(run._parts(0)) == expected
        assert expected is not None or 1 < len(run._parts(0)) < 4
    loss, whole = found["one batch"]
    assert max(gradient.abs().max().item() for gradient in whole.values()) > 1e-3, "there must be something to compare"
    for other_loss, other in (found["micro-batches"], found["single rows"]):
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert apart(whole, other) < 1e-5


def test_a_gradient_that_is_not_a_number_stops_within_its_step_and_changes_nothing(tiny, tmp_path):
    import torch

    run = small_run(tiny, tmp_path / "checkpoints")
    call_at_pass(run, 9, lambda: run.optimizer._weights[0].register_hook(lambda grad: grad * math.inf))
    with pytest.raises(TrainingError, match=r"the gradient's norm is (nan|inf); lower training\.learning_rate"):
        run.run()
    assert 0 < run.progress.step < len(run.schedule)
    assert all(torch.isfinite(master).all() for master in run.optimizer.masters)
    again = small_run(tiny, tmp_path / "checkpoints")
    again.resume()
    assert are_equal(weights_of(again), weights_of(run)), "what was kept is from before"


def test_a_loss_that_is_not_a_number_stops_within_its_micro_batch(tiny):
    run = small_run(tiny)
    original = run.objective.loss_sum
    passes = call_at_pass(
        run, 5, lambda: setattr(run.objective, "loss_sum", lambda rows, **_: original(rows) * math.inf)
    )
    with pytest.raises(TrainingError, match=r"the loss at step \d is inf; lower training\.learning_rate"):
        run.run()
    assert passes[0] <= 6


def test_steps_whose_gradients_overflow_fp16_are_skipped_and_counted(tiny):
    run = small_run(tiny, precision="fp16", device="auto", dropout=0.0, epochs=4)
    run.optimizer._scaler._init_scale = 2.0**40
    before = weights_of(run)
    norms = []

    def note(event, **facts):
        norms.append(facts["gradient_norm"])
        if len(norms) == 1:
            assert facts["skipped_steps"] == 1
            assert are_equal(weights_of(run), before), "a skipped step changes nothing"
            run.optimizer._scaler.update(2.0**12)

    run.progress.tell = note
    run.run()
    assert norms[0] is None
    assert all(norm is not None for norm in norms[1:])
    assert not are_equal(weights_of(run), before)


def test_gradients_that_overflow_fp16_at_any_scale_stop_the_run(tiny):
    run = small_run(tiny, precision="fp16", device="auto", dropout=0.0, epochs=30)
    for weight in run.optimizer._weights:
        weight.register_hook(lambda grad: grad * math.inf)
    before = weights_of(run)
    with pytest.raises(
        TrainingError, match=r"in fp16, although the loss is not scaled up any more.*training\.precision"
    ):
        run.run()
    assert run.progress.skipped == run.progress.step == 16, "from 65536 to 1"
    assert are_equal(weights_of(run), before)


LONG = [Example(tuple(3 + n % 300 for n in range(380 + row)), (7, 8, 9, 1)) for row in range(16)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("wide"))


def with_little_memory(megabytes, action):
    """Do something while the process may take so much more address space: torch's own error, and no other."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, before[1]))
    try:
        return action()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_memory_that_runs_out_makes_smaller_parts_and_the_same_step(wide):
    """16 rows of 384 tokens keep 16 x 2 x 384² scores a layer: 19 MB each time they are written."""
    import torch

    settings = {"batch_rows": 16, "micro_batch_tokens": 0, "epochs": 1}
    without_limit = small_run(wide, rows=LONG, **{**settings, "dropout": 0.0})
    limited = small_run(wide, rows=LONG, **{**settings, "dropout": 0.0})
    limited._random_at_start = {"random.cpu": torch.get_rng_state()}
    told = []
    limited.progress.tell = lambda event, **facts: told.append((event, facts))
    loss, gradients = with_little_memory(60, lambda: gradients_of(limited))
    expected_loss, expected = gradients_of(without_limit)
    assert [event for event, _ in told] == ["smaller"] * len(told) != []
    assert told[0][1]["from_tokens"] == 16 * max(len(row) for row in LONG)
    assert limited.progress.most_tokens == told[-1][1]["to_tokens"] < 16 * 384
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert apart(expected, gradients) < 1e-5


def test_after_memory_ran_out_a_step_draws_the_random_numbers_that_it_would_have_drawn(tiny, monkeypatch):
    """It fails in its second micro-batch, when dropout has drawn already."""
    reference = small_run(tiny, micro_batch_tokens=1)
    reference.run()
    run = small_run(tiny, micro_batch_tokens=1)
    original, passes = run.objective.loss_sum, []

    def fail_once(rows, **settings):
        passes.append(rows)
        loss = original(rows, **settings)
        if len(passes) == 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return loss

    monkeypatch.setattr(run.objective, "loss_sum", fail_once)
    monkeypatch.setattr(run, "_take_smaller_parts", forget_to_shrink(run))
    run.run()
    assert are_equal(weights_of(run), weights_of(reference))


def forget_to_shrink(run):
    """Go back to the beginning of the step, as the method does, with rows that are alone already."""
    original = run._take_smaller_parts

    def take(number):
        with pytest.raises(TrainingError, match="on a single row of"):
            original(number)

    return take


def test_a_single_row_that_does_not_fit_is_one_sentence_with_the_keys_to_change(tiny):
    run = small_run(tiny, micro_batch_tokens=1)

    def fail(_rows, **_):
        raise MemoryError

    run.objective.loss_sum = fail
    with pytest.raises(TrainingError, match=r"single row of \d+ tokens; lower training\.max_length_tokens, or set "):
        run.run()


def test_a_long_row_that_does_not_fit_ends_the_run_although_short_ones_share_parts(tiny):
    """Beside it, two short rows fit into half of it: the limit has to go on falling for the end to come."""
    lengths = (75, 75, 80, 85, 90, 95, 100, 400)
    rows = [Example((5,) * (length - 4), (7, 8, 9, 1)) for length in lengths]
    run = small_run(tiny, rows=rows, batch_rows=8, micro_batch_tokens=800, epochs=1)
    original, told = run.objective.loss_sum, []

    def fail_at_the_longest(part, **settings):
        if max(lengths[row] for row in part) == 400:
            assert len(told) < 20, "it goes on for ever"
            raise MemoryError
        return original(part, **settings)

    run.objective.loss_sum = fail_at_the_longest
    run.progress.tell = lambda event, **facts: told.append((event, facts["from_tokens"], facts["to_tokens"]))
    with pytest.raises(TrainingError, match="the memory ran out on a single row of 400 tokens"):
        run.run()
    assert told == [("smaller", 700, 350), ("smaller", 350, 175), ("smaller", 175, 87)]


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_is_short_is_known_by_what_torch_says_of_it(said):
    assert ran_out_of_memory(RuntimeError(said))
    assert not ran_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not ran_out_of_memory(ValueError(said))


def test_any_other_runtime_error_is_not_taken_for_memory(tiny):
    run = small_run(tiny)

    def fail(_rows, **_):
        raise RuntimeError("shapes do not fit")

    run.objective.loss_sum = fail
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run.run()


def test_small_runs_have_dropout_and_parts(tiny):
    """What the other tests stand on."""
    run = small_run(tiny)
    assert SMALL["dropout"] > 0
    assert all(len(run._parts(number)) > 1 for number in range(len(run.schedule)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_gradients_of_many_small_parts_are_not_lost_in_half_precision(precision, tiny):
    """Of 300 equal parts a sum in bf16 keeps about 256, in which a part is half of the last digit."""
    import torch

    run = small_run(tiny, precision=precision, device="auto", rows=[Example((5, 6), (7,))], dropout=0.0)
    optimizer = run.optimizer
    weight, master = optimizer._weights[0], optimizer.masters[0]
    for _ in range(300):
        optimizer.backward((weight.float() * 0.01).sum())
    optimizer.take_gradients()
    part = torch.tensor(0.01, dtype=weight.dtype).item()
    assert torch.allclose(master.grad, torch.full_like(master.grad, 300 * part), rtol=1e-5)


def test_half_precision_gradients_wait_in_the_masters_and_are_dropped_with_the_step(tiny):
    """Before a part's forward pass they are in one place only."""
    run = small_run(tiny, precision="bf16", micro_batch_tokens=1)
    original, waiting = run.objective.loss_sum, []

    def loss_sum(rows, **settings):
        weights, masters = run.optimizer._weights, run.optimizer.masters
        waiting.append([sum(t.grad is not None for t in tensors) for tensors in (weights, masters)])
        return original(rows, **settings)

    run.objective.loss_sum = loss_sum
    run._random_at_start = {}
    run._gradients(0)
    count = len(run.optimizer.masters)
    assert waiting == [[0, 0], *([[0, count]] * (len(waiting) - 1))]
    assert len(waiting) == 4
    run.optimizer.drop_gradients()
    assert all(tensor.grad is None for tensor in (*run.optimizer._weights, *run.optimizer.masters))
