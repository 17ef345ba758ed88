"""What a training needs is counted on a model without weights; what is free is read from machine and container."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.examples import Example
from tasks.training.plan.free import control_group_rooms


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cpu():
    import torch

    from tasks.training.loop.trainee import Place

    return Place(torch.device("cpu"), torch.float32)


def example(tokens, answers):
    return Example(tuple(range(3, 3 + tokens - answers)), tuple(range(3, 3 + answers)))


BATCH = [example(48, 16) for _ in range(4)]
ON_CPU = {"device": "cpu", "precision": "fp32"}


@pytest.mark.parametrize("method", ["lora", "dora", "full", "prefix", "prompt", "p_tuning", "ia3", "lora_prefix"])
def test_the_rehearsal_has_the_tensors_of_the_real_step_byte_for_byte(method, base, cpu):
    """The same ledger over the real model, on real tensors, is the reference."""
    from tasks.training.plan.rehearsal import Rehearsal

    training = TrainingSection(method=method, virtual_tokens=4, **ON_CPU)
    rehearsed = Rehearsal(base, training, cpu).step(BATCH, accumulates=False)
    peak, trained = real_peak(base, training, cpu)
    assert rehearsed.trained_parameters == trained
    assert rehearsed.peak_bytes == pytest.approx(peak, rel=0.03)


def real_peak(base, training, place):
    import torch

    from tasks.training.loop.objectives import make_objective
    from tasks.training.loop.optimizer import MasterOptimizer
    from tasks.training.loop.trainee import Trainee
    from tasks.training.plan.ledger import Ledger
    from tasks.training.plan.rehearsal import _all_tensors

    class OnRealTensors(Ledger):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    self.add(tensor)
            return result

    trainee = Trainee(base, training, place)
    trainee.transformer.set_attn_implementation("eager")
    trainee.transformer.train()
    objective = make_objective(trainee, BATCH)
    ledger = OnRealTensors(lambda tensor: "any")
    for tensor in _all_tensors(trainee, None):
        ledger.add(tensor)
    with ledger:
        optimizer = MasterOptimizer(trainee.trained_parameters(), training, place)
        for _ in range(2):
            loss = objective.loss_sum(range(4)) / objective.divisor(range(4))
            optimizer.backward(loss)
            del loss
            optimizer.take_gradients()
            optimizer.step(1e-3)
    return ledger.peak_bytes, sum(each.numel() for each in trainee.trained_parameters().values())


def planner(base, cpu, free):
    from tasks.training.plan.plan import Planner

    made = Planner(base, cpu)
    made._free = free
    return made


def work(rows=16, tokens=300):
    from tasks.training.plan.plan import Work

    return Work([example(tokens, 40) for _ in range(rows)], rows)


def planned(base, cpu, training, free, rows=None):
    from tasks.training.plan.rehearsal import Rehearsal

    return planner(base, cpu, free).plan(training, rows or work(), Rehearsal(base, training, cpu))


def test_the_micro_batch_is_as_large_as_the_free_memory_allows_and_no_larger_than_what_gains(base, cpu):
    from tasks.training.plan.plan import FREE_SHARE, MOST_TOKENS

    training = TrainingSection(**ON_CPU)
    roomy = planned(base, cpu, training, 10**12)
    assert roomy.micro_batch_tokens == MOST_TOKENS["cpu"]
    narrow = planned(base, cpu, training, int(roomy.needed_bytes * 0.9))
    assert 0 < narrow.micro_batch_tokens < roomy.micro_batch_tokens
    assert narrow.needed_bytes <= FREE_SHARE * narrow.free_bytes
    assert narrow.memory.activations < roomy.memory.activations


def test_a_configured_micro_batch_is_taken_as_it_is(base, cpu):
    assert planned(base, cpu, TrainingSection(micro_batch_tokens=700, **ON_CPU), 10**12).micro_batch_tokens == 700


def test_activation_checkpointing_keeps_less_and_computes_more(base, cpu):
    plain = planned(base, cpu, TrainingSection(**ON_CPU), 10**12)
    checkpointed = planned(base, cpu, TrainingSection(activation_checkpointing=True, **ON_CPU), 10**12)
    assert checkpointed.memory.activations + checkpointed.memory.attention < 0.8 * (
        plain.memory.activations + plain.memory.attention
    )
    assert checkpointed.seconds * checkpointed.flops_per_second > 1.15 * plain.seconds * plain.flops_per_second


def test_what_cannot_fit_even_row_by_row_is_refused_with_numbers_and_keys(base, cpu):
    from tasks.training.plan.plan import refuse_what_cannot_fit

    training = TrainingSection(**ON_CPU)
    plan = planned(base, cpu, training, 1_000_000)
    assert plan.micro_batch_tokens == 1 and plan.largest_rows == 1
    with pytest.raises(TrainingError, match=r"lora needs about 0\.\d\d GB and 0\.00 GB are free.*training\.max_length"):
        refuse_what_cannot_fit(plan, training)
    refuse_what_cannot_fit(replace(plan, free_bytes=plan.needed_bytes), training)


def test_advice_puts_what_fits_before_what_does_not_and_the_fastest_first(base, cpu):
    from tasks.training.plan.advice import advise

    training = TrainingSection(method="full", micro_batch_tokens=4_096, **ON_CPU)
    asked = planner(base, cpu, 10**12)
    rows = work(8, 300)
    plan = planned(base, cpu, training, 10**12, rows)
    advice = advise(asked, training, rows, plan)
    assert {"micro_batch_tokens", "activation_checkpointing"} <= {each.key for each in advice}
    assert all(each.plan.memory.total < plan.memory.total for each in advice)
    order = [(not each.plan.fits, each.plan.seconds) for each in advice]
    assert order == sorted(order)


def test_a_choice_is_kept_for_the_processes_that_resume(tmp_path):
    from tasks.training.process import keep_choice

    folder = str(tmp_path / "checkpoints")
    assert keep_choice(folder, 512) == 512
    assert keep_choice(folder, 2_048) == 512
    assert keep_choice("", 2_048) == 2_048


def group(folder: Path, names, limit, used, cache):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\ntotal_inactive_file {cache}\n")


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_every_limit_above_the_process_counts_and_droppable_cache_is_free(tmp_path):
    group(tmp_path / "fs/a/b", V2, "max", 10, 0)
    group(tmp_path / "fs/a", V2, 1_000, 700, 200)
    (tmp_path / "own").write_text("0::/a/b\n")
    assert control_group_rooms(tmp_path / "own", tmp_path / "fs") == [500]


def test_the_older_control_groups_are_read_too_and_a_path_of_the_host_is_looked_up_at_the_top(tmp_path):
    group(tmp_path / "fs/memory", V1, 1_000, 400, 100)
    (tmp_path / "own").write_text("7:cpu:/x\n5:memory:/docker/abc\n")
    assert control_group_rooms(tmp_path / "own", tmp_path / "fs") == [700]


def test_no_control_groups_are_no_limit(tmp_path):
    assert control_group_rooms(tmp_path / "absent", tmp_path) == []
