"""What the planning process says of an order, and what the flow's stage makes of it: a line, a warning, a refusal."""

import logging

import pytest
from tiny_training import Recorder, dataset_of, row, section, tiny_base

from tasks.contracts import worker
from tasks.contracts.errors import TrainingError
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.training import steps
from tasks.training.adapter import TrainingJob
from tasks.training.plan import plan as plans
from tasks.training.plan import process


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rows = [row(n, f"Say number {n} of them.", "Return the sum of two numbers.") for n in range(12)]
    return dataset_of(tmp_path_factory.mktemp("rows"), rows)


@pytest.fixture
def said_of(base, dataset, tmp_path, monkeypatch):
    """Plan in this process, where so many bytes are free, and return what the planning process says."""

    def plan(free, **settings):
        said = []
        monkeypatch.setattr(plans, "free_bytes", lambda device: free)
        monkeypatch.setattr(worker, "_events", [Recorder(said)])
        process.run(TrainingJob(base, dataset, section(**settings)).order(tmp_path / "adapter", None))
        (facts,) = said
        return facts

    return plan


def test_what_does_not_fit_comes_with_settings_that_do(said_of):
    roomy = said_of(10**12)
    assert roomy["fits"] and roomy["may_fit"] and roomy["advice"] == []
    large = said_of(10**12, micro_batch_tokens=4_096, batch_rows=12)
    narrow = said_of((roomy["needed_bytes"] + large["needed_bytes"]) // 2, micro_batch_tokens=4_096, batch_rows=12)
    assert not narrow["fits"]
    (smaller,) = [each for each in narrow["advice"] if each["key"] == "training.micro_batch_tokens"]
    assert smaller["value"] < 4_096 and smaller["total_bytes"] < narrow["total_bytes"]
    assert narrow["advice"][0]["fits"]


def test_one_of_several_processes_is_planned(said_of, monkeypatch):
    monkeypatch.setattr(plans, "flops_per_second", lambda *_: 1e11)  # measured twice, it would be two speeds
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    alone, two = said_of(10**12), said_of(10**12, processes=2)
    assert (alone["free_bytes"], two["free_bytes"]) == (10**12, 10**12 // 2)
    assert two["seconds"] < alone["seconds"]
    # With dropout neither takes the fast way, which has weights of its own.
    whole = said_of(10**12, processes=2, dropout=0.1)
    sharded = said_of(10**12, processes=2, dropout=0.1, sharding="fsdp")
    assert sharded["memory"]["weights"] == pytest.approx(whole["memory"]["weights"] / 2, abs=1)
    with pytest.raises(TrainingError, match=r"training\.sharding is fsdp, and one process trains"):
        said_of(10**12, sharding="fsdp")


FACTS = {
    "needed_bytes": 3_000_000_000,
    "free_bytes": 8_000_000_000,
    "seconds": 40.0,
    "micro_batch_tokens": 2_048,
    "largest_rows": 4,
    "largest_tokens": 512,
    "fits": True,
    "may_fit": True,
    "advice": [],
}
SMALLER = {"key": "training.micro_batch_tokens", "value": 1_024, "needed_bytes": 2e9, "total_bytes": 3e9, "fits": True}
SMALLER |= {"rows": 30, "rows_left_out": 0, "rows_cut_off": 0}


@pytest.fixture
def stage(base, dataset, tmp_path, monkeypatch, caplog):
    """Run the stage with facts of a planning process, and return what it logged."""
    job, store = TrainingJob(base, dataset, section()), Store(tmp_path / "store")

    def run(**facts):
        caplog.set_level(logging.INFO, logger="llm_retrain.training")
        monkeypatch.setattr(steps, "request_plan", lambda *_: {**FACTS, **facts})
        steps.plan_training.fn(job, Home(tmp_path), store)
        return caplog.record_tuples

    return run


def test_the_estimate_beside_what_is_free_is_a_line_of_the_log(stage):
    ((_, level, line),) = stage()
    assert level == logging.INFO
    assert line == "The training needs about 3.00 GB, 8.00 GB are free; about 40 s; at most 4 x 512 tokens at a time"


def test_what_may_not_fit_is_a_warning_with_what_would(stage):
    ((_, level, line),) = stage(fits=False, free_bytes=2_900_000_000, advice=[SMALLER])
    assert level == logging.WARNING
    assert "2.90 GB are free" in line
    assert line.endswith("that may be too much; it would fit with training.micro_batch_tokens=1024 (2.00 GB)")


def test_advice_that_leaves_rows_out_says_how_many(stage):
    shorter = {**SMALLER, "key": "training.max_length_tokens", "value": 300, "rows_left_out": 3}
    ((_, _, line),) = stage(fits=False, free_bytes=2_900_000_000, advice=[shorter])
    assert line.endswith("it would fit with training.max_length_tokens=300 (2.00 GB, 3 of 30 rows left out)")


def test_what_cannot_fit_is_refused_with_what_would(stage):
    with pytest.raises(TrainingError, match=r"3\.00 GB and 2\.20 GB are free.*with training\.micro_batch_tokens=1024 "):
        stage(fits=False, may_fit=False, free_bytes=2_200_000_000, advice=[SMALLER])


def test_one_trial_of_many_is_warned_of_and_not_refused(base, dataset, tmp_path, monkeypatch, caplog):
    too_much = {**FACTS, "fits": False, "may_fit": False, "free_bytes": 1}
    monkeypatch.setattr(steps, "request_plan", lambda *_: too_much)
    job = TrainingJob(base, dataset, section())
    steps.plan_training.fn(job, Home(tmp_path), Store(tmp_path / "store"), searched=["rank"])
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert line.startswith("Trials with the configured settings will fail: training.method lora needs about 3.00 GB")


@pytest.mark.parametrize(
    ("said", "searched"),
    [
        ("training.method lora needs about 3 GB", ["learning_rate"]),
        ("training.target_modules names 'no_such_layer'", ["rank"]),
        ("12 of 12 rows cannot be spelled", ["rank", "target_modules"]),
    ],
)
def test_what_no_trial_could_do_otherwise_ends_a_sweep_before_anything_is_built(
    said, searched, base, dataset, tmp_path, monkeypatch
):
    def refuse(*_):
        raise TrainingError(said)

    monkeypatch.setattr(steps, "request_plan", lambda *_: FACTS if "needs about" in said else refuse())
    monkeypatch.setattr(steps, "refuse_what_cannot_fit", refuse)
    with pytest.raises(TrainingError, match=said[:20]):
        steps.plan_training.fn(TrainingJob(base, dataset, section()), Home(tmp_path), Store(tmp_path / "s"), searched)


def test_a_refusal_that_names_a_searched_setting_is_a_warning(base, dataset, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise TrainingError("training.rank is 512, larger than a layer")

    monkeypatch.setattr(steps, "request_plan", refuse)
    job = TrainingJob(base, dataset, section())
    steps.plan_training.fn(job, Home(tmp_path), Store(tmp_path / "store"), ["rank"])
    assert "will fail: training.rank is 512" in caplog.text


def test_what_is_trained_already_is_not_planned(base, dataset, tmp_path, monkeypatch):
    job, store = TrainingJob(base, dataset, section()), Store(tmp_path / "store")
    asked = []
    monkeypatch.setattr(steps, "request_plan", lambda *_: asked.append(1) or FACTS)
    steps.plan_training.fn(job, Home(tmp_path), store)
    store.produce("adapter", job.store_inputs(), lambda out: {"written": (out / "adapter").write_text("weights")})
    steps.plan_training.fn(job, Home(tmp_path), store)
    assert len(asked) == 1
