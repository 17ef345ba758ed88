"""What could be changed so that a training fits: only what can be configured, and what leaves rows to train on."""

import pytest
from tiny_plan import example, planner, work

from tasks.contracts.training_config import TrainingSection
from tasks.training import device
from tasks.training.plan import advice as advices

ON_CPU = {"device": "cpu", "precision": "fp32", "micro_batch_tokens": 4_096}


@pytest.fixture
def advise(base, cpu):
    def ask(training, rows=None, free=10**12):
        from tasks.training.plan.rehearsal import Rehearsal

        rows, asked = rows or work(8), planner(base, cpu, free)
        plan = asked.plan(training, rows, Rehearsal(base, training, cpu))
        return plan, advices.advise(asked, training, rows, plan)

    return ask


def test_what_fits_comes_before_what_does_not_and_the_fastest_first(advise):
    training = TrainingSection(method="full", **ON_CPU)
    plan, everything = advise(training)
    assert {"micro_batch_tokens", "activation_checkpointing"} <= {each.key for each in everything}
    assert all(each.plan.memory.total < plan.memory.total for each in everything)
    needed = sorted(each.plan.needed_bytes for each in everything)
    enough_for_some = (needed[1] + needed[2]) // 2
    _, advice = advise(training, free=enough_for_some)
    fit = [each.plan.fits for each in advice]
    assert fit == sorted(fit, reverse=True) and set(fit) == {True, False}
    for same in (True, False):
        seconds = [each.plan.seconds for each in advice if each.plan.fits is same]
        assert seconds == sorted(seconds)


def test_the_largest_micro_batch_that_fits_is_named_however_many_halves_away_it_is(advise):
    training = TrainingSection(method="full", batch_rows=16, **ON_CPU)

    def smaller(free):
        return next(each for each in advise(training, work(16, 100), free)[1] if each.key == "micro_batch_tokens")

    assert smaller(10**12).value == 800
    least = smaller(1)
    assert (least.value, least.plan.fits) == (100, False), "not even one row at a time"
    found = smaller(least.plan.needed_bytes)
    assert (found.value, found.plan.fits) == (100, True)
    middle = smaller((least.plan.needed_bytes + smaller(10**12).plan.needed_bytes) // 2)
    assert middle.plan.fits and 100 < middle.value < 800


@pytest.mark.timeout(60)
def test_rows_are_shortened_to_what_most_of_the_own_rows_have_however_short_the_replayed_ones_are(advise):
    from tasks.training.plan.plan import Work

    training = TrainingSection(replay="ab" * 8, replay_share=0.5, **ON_CPU)
    replayed = [example(20, 5) for _ in range(40)]
    _, advice = advise(training, Work([*(example(300, 40) for _ in range(4)), *replayed], 4))
    assert "max_length_tokens" not in {each.key for each in advice}, "no own row would be left"
    own = [*(example(100, 40) for _ in range(9)), example(300, 40)]
    _, advice = advise(training, Work([*own, *replayed], 10))
    (shorter,) = [each for each in advice if each.key == "max_length_tokens"]
    assert shorter.value == 100
    assert (shorter.rows, shorter.rows_left_out, shorter.rows_cut_off) == (10, 1, 0)


def test_rows_that_would_be_cut_off_still_cost_time(advise, monkeypatch):
    from tasks.training.plan import plan as plans
    from tasks.training.plan.plan import Work

    monkeypatch.setattr(plans, "flops_per_second", lambda *_: 1e11)  # measured twice, it would be two speeds
    rows = [*(example(100, 40) for _ in range(18)), *(example(300, 240) for _ in range(2))]
    seconds = {}
    for long_rows in ("drop", "truncate"):
        _, advice = advise(TrainingSection(long_rows=long_rows, **ON_CPU), Work(rows, len(rows)))
        (shorter,) = [each for each in advice if each.key == "max_length_tokens"]
        assert shorter.value == 100
        seconds[long_rows] = shorter.plan.seconds
        assert (shorter.rows_left_out, shorter.rows_cut_off) == ((2, 0) if long_rows == "drop" else (0, 2))
    assert seconds["truncate"] > seconds["drop"]


def test_no_rows_are_shortened_where_no_replayed_row_would_be_left(advise):
    from tasks.training.plan.plan import Work

    own = [*(example(100, 40) for _ in range(9)), example(300, 40)]
    training = TrainingSection(replay="ab" * 8, replay_share=0.5, **ON_CPU)
    _, advice = advise(training, Work([*own, example(200, 40)], 10))
    assert "max_length_tokens" not in {each.key for each in advice}


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"method": "full", "ewc_weight": 1.0, "replay": "ab" * 8}, {"lora", "qlora"}),
        ({"method": "lora", "sharding": "fsdp", "processes": 2}, {"qlora"}),
        ({"method": "full", "rank": 65}, {"lora", "qlora"}),
        ({"method": "lora_prefix"}, {True}),
    ],
    ids=["weights are guarded", "weights are sharded", "a rank larger than the layers", "keys and values are trained"],
)
def test_nothing_is_advised_that_would_be_refused(settings, refused, advise):
    training = TrainingSection.model_validate({**ON_CPU, **settings})
    _, advice = advise(training)
    assert advice, "something else is"
    assert not {each.value for each in advice if each.key in ("method", "activation_checkpointing")} & refused
    for each in advice:
        TrainingSection.model_validate({**training.model_dump(), each.key: each.value})


def test_qlora_is_advised_only_where_bitsandbytes_has_a_library_for_the_device(advise, monkeypatch):
    import bitsandbytes

    training = TrainingSection(method="full", **ON_CPU)
    assert "qlora" in {each.value for each in advise(training)[1]}
    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    assert "qlora" not in {each.value for each in advise(training)[1]}


@pytest.mark.parametrize(("computes_bf16", "advised"), [(True, ["bf16"]), (False, [])])
def test_a_precision_is_advised_that_the_device_computes_itself(computes_bf16, advised, advise, monkeypatch):
    monkeypatch.setattr(device, "cpu_computes_bf16", lambda: computes_bf16)
    assert [each.value for each in advise(TrainingSection(**ON_CPU))[1] if each.key == "precision"] == advised
