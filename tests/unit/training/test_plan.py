"""What a training needs is counted on a model without weights; what is free is read from machine and container."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import make_tiny_base_model, make_tiny_tokenizer
from tiny_plan import example, planned

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.examples import Example
from tasks.training.plan.free import control_group_rooms
from tasks.training.plan.verdict import refuse_what_cannot_fit, what_to_change


def test_sharded_weights_are_rehearsed_the_plain_way_as_they_are_trained(base, cpu):
    from tasks.training.plan.rehearsal import Rehearsal

    sharded = TrainingSection(sharding="fsdp", processes=2, **ON_CPU)
    assert not Rehearsal(base, sharded, cpu).is_fast
    assert Rehearsal(base, TrainingSection(**ON_CPU), cpu).is_fast


def test_code_of_products_is_counted_where_rows_have_many_lengths(base):
    """In 16 bits, where oneDNN makes it, and no more of it than is kept."""
    import torch

    from tasks.training.fast.runtime import KEPT_PRODUCTS
    from tasks.training.loop.trainee import Place
    from tasks.training.plan.memory import PRODUCT_BYTES
    from tasks.training.plan.plan import Work

    many = [example(tokens, 8) for tokens in range(20, 620, 5)]
    one = [example(615, 8) for _ in many]
    reserves = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        training = TrainingSection(device="cpu", precision=precision, batch_rows=1, micro_batch_tokens=4_096)
        place = Place(torch.device("cpu"), dtype)
        for name, rows in (("many", many), ("one", one)):
            plan = planned(base, place, training, 10**12, Work(rows, len(rows)))
            reserves[precision, name] = plan.memory.reserve
    assert reserves["fp32", "many"] == reserves["fp32", "one"]
    code = reserves["bf16", "many"] - reserves["bf16", "one"]
    assert 50 * PRODUCT_BYTES < code < KEPT_PRODUCTS * PRODUCT_BYTES


def test_the_largest_batch_is_the_one_that_is_largest_once_packed(base, cpu):
    """Rows that begin alike have that beginning once: shorter rows that do not may need more."""
    from tasks.training.plan.plan import Work

    start, answer = tuple(range(100, 140)), tuple(range(3, 11))
    alike = [Example((*start, *range(3 + row, 51 + row)), answer) for row in range(8)]
    apart = [Example(tuple(range(3 + row, 85 + row)), answer) for row in range(8)]
    training = TrainingSection(batch_rows=8, micro_batch_tokens=4_096, **ON_CPU)
    alone = planned(base, cpu, training, 10**12, Work(apart, 8))
    beside = planned(base, cpu, training, 10**12, Work([*apart, *alike], 16))
    assert beside.memory.activations == alone.memory.activations


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


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_step_for_a_gpu_is_rehearsed_without_one_and_its_moments_are_8_bytes_a_number(method, tmp_path):
    """The layers have more than 1e5 numbers each, which bitsandbytes' paged optimizer would put on the GPU."""
    import torch

    from tasks.training.loop.trainee import Place
    from tasks.training.plan.rehearsal import Rehearsal

    wide = make_tiny_base_model(tmp_path, hidden=512)
    training = TrainingSection(method=method, rank=256, precision="bf16")
    gpu = Place(torch.device("cuda"), torch.bfloat16)
    rehearsed = Rehearsal(wide, training, gpu).step(BATCH, accumulates=False)
    assert rehearsed.resident["optimizer"] == pytest.approx(8 * rehearsed.trained_parameters, rel=1e-3)
    assert rehearsed.resident["masters"] == 4 * rehearsed.trained_parameters


def test_qlora_is_rehearsed_on_layers_that_hold_their_weight_the_other_way_round(tmp_path, cpu):
    from transformers import GPT2Config

    from tasks.training.plan.rehearsal import Rehearsal

    make_tiny_tokenizer().save_pretrained(tmp_path)
    shape = {"n_embd": 256, "n_layer": 1, "n_head": 2, "vocab_size": 600}
    GPT2Config(**shape, architectures=["GPT2LMHeadModel"]).save_pretrained(tmp_path)
    lora, qlora = (
        Rehearsal(tmp_path, TrainingSection(method=method, **ON_CPU), cpu).step(BATCH, accumulates=False)
        for method in ("lora", "qlora")
    )
    assert qlora.trained_parameters == lora.trained_parameters
    numbers = 256 * (3 * 256 + 256 + 2 * 4 * 256)
    saved = lora.resident["weights"] - qlora.resident["weights"]
    assert saved == pytest.approx((4 - 0.516) * numbers, rel=0.02), "4 bits a number, and a byte for 64 of them"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_step_in_fp16_is_rehearsed_with_the_bytes_of_one_in_bf16(device, base):
    import torch

    from tasks.training.loop.trainee import Place
    from tasks.training.plan.rehearsal import Rehearsal

    fp16, bf16 = (
        Rehearsal(base, TrainingSection(), Place(torch.device(device), dtype)).step(BATCH, accumulates=False)
        for dtype in (torch.float16, torch.bfloat16)
    )
    assert fp16.resident == bf16.resident and fp16.resident["optimizer"] > 0
    assert fp16.peak_bytes == bf16.peak_bytes


def test_small_tensors_that_are_freed_before_large_ones_come_are_kept_by_the_heap():
    """glibc's heap gives nothing back, and what is large is not in it: both peaks count, whenever they are."""
    import torch

    from tasks.training.plan.ledger import Ledger

    with Ledger(lambda _: "activations", large_bytes=1_000) as ledger:
        small = [torch.empty(100, device="meta") for _ in range(5)]
        ledger.begin_peaks()
        del small[1:]
        large = [torch.empty(250 + n, device="meta") for n in range(2)]
        del large, small
    assert ledger.peak_bytes == 400 + 1_000 + 1_004 == ledger.most_small - 1_600 + ledger.most_large


def test_what_the_heap_keeps_is_counted_on_a_cpu_only():
    from tasks.training.plan.memory import memory_of
    from tasks.training.plan.rehearsal import Rehearsed

    def reserve(process, kept):
        rehearsed = Rehearsed({"activations": 1_000}, {"weights": 10}, kept, {}, 0, 0, 0, 0)
        return memory_of(rehearsed, TrainingSection(), process, 0, 0).reserve

    assert reserve(process=1, kept=400) - reserve(process=1, kept=0) == 400
    assert reserve(process=0, kept=400) == reserve(process=0, kept=0)


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


def test_activation_checkpointing_keeps_less_and_computes_more(base, cpu, monkeypatch):
    monkeypatch.setattr("tasks.training.plan.plan.flops_per_second", lambda *_: 1e10)
    plain = planned(base, cpu, TrainingSection(**ON_CPU), 10**12)
    checkpointed = planned(base, cpu, TrainingSection(activation_checkpointing=True, **ON_CPU), 10**12)
    assert checkpointed.memory.activations + checkpointed.memory.attention < 0.8 * (
        plain.memory.activations + plain.memory.attention
    )
    assert checkpointed.seconds > 1.15 * plain.seconds


def test_what_cannot_fit_even_row_by_row_is_refused_with_numbers_and_keys(base, cpu):
    training = TrainingSection(**ON_CPU)
    plan = planned(base, cpu, training, 1_000_000)
    assert plan.micro_batch_tokens == 1 and plan.largest_rows == 1
    with pytest.raises(
        TrainingError, match=r"method lora needs about 0\.\d\d GB and 0\.00 GB are free, .* of 1 x 300 "
    ):
        refuse_what_cannot_fit(plan.to_json(), "lora")


def test_what_an_estimate_that_is_too_high_would_rule_out_is_not_refused(base, cpu):
    plan = planned(base, cpu, TrainingSection(**ON_CPU), 10**12)
    nearly = replace(plan, free_bytes=int(plan.needed_bytes / 1.14))
    assert not nearly.fits and nearly.may_fit
    refuse_what_cannot_fit(nearly.to_json(), "lora")
    with pytest.raises(TrainingError):
        refuse_what_cannot_fit(replace(plan, free_bytes=int(plan.needed_bytes / 1.16)).to_json(), "lora")


def test_a_refusal_names_what_would_fit_and_otherwise_what_saves_most():
    """The training process knows of no advice: it had to plan five trainings more."""
    facts = {"may_fit": False, "needed_bytes": 5e9, "free_bytes": 2e9, "largest_rows": 2, "largest_tokens": 9}

    def change(key, value, needed):
        return {
            "key": key,
            "value": value,
            "needed_bytes": needed,
            "total_bytes": needed + 1e8,
            "fits": needed <= 2e9,
            "rows": 9,
            "rows_left_out": 0,
            "rows_cut_off": 0,
        }

    advice = [change("training.activation_checkpointing", True, 1e9), change("training.method", "qlora", 3e9)]
    assert what_to_change({**facts, "advice": advice}) == (
        "it would fit with training.activation_checkpointing=true (1.00 GB)"
    )
    assert what_to_change({**facts, "advice": advice[1:]}) == (
        "no single setting makes it fit; training.method=qlora (3.00 GB) saves most"
    )
    assert what_to_change({**facts, "advice": []}).startswith("no setting needs less")
    with pytest.raises(TrainingError, match=r"2 x 9 tokens; llm-retrain plan names settings that need less$"):
        refuse_what_cannot_fit(facts, "full")


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


def test_processes_of_a_cpu_take_as_long_as_one_where_it_had_all_cores(base, cpu, monkeypatch):
    import os

    import torch

    from tasks.training.distributed.group import Group
    from tasks.training.plan.plan import Planner

    def times_as_fast(cores, threads, **group):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return Planner(base, cpu, group=Group(**group))._times_as_fast

    assert times_as_fast(2, 2, size=2) == 1
    assert times_as_fast(8, 2, size=2) == 2, "one process left cores idle"
    assert times_as_fast(2, 1, size=8) == 2, "there are no more cores"
    assert times_as_fast(2, 2, size=4, nodes=2) == 2, "each machine has its own"
