"""What becomes of a run when MLflow does not answer for a moment, or for good."""

from pathlib import Path

import pytest

from tasks.contracts.artifacts import Difference, EvalReport, Finding, GateDecision, Interval, Part
from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError, TrainingStopped
from tasks.contracts.home import Home
from tasks.contracts.methods import METHODS
from tasks.registry import sender
from tasks.registry.connection import connect
from tasks.registry.journal import open_journal
from tasks.registry.tracking import TrackedRun, last_runs, tracked_run


class Client:
    """An MLflow client that takes metrics, parameters, tags and JSON files, except while it is locked."""

    def __init__(self):
        self.locked, self.points, self.params, self.tags, self.kept, self.calls = False, [], {}, {}, {}, 0

    def log_batch(self, _run_id, metrics=(), params=(), tags=()):
        from mlflow.exceptions import MlflowException

        assert len(metrics) <= 1_000
        if self.locked:
            raise MlflowException("database is locked")
        self.calls += 1
        self.points += [(metric.key, metric.step, metric.value) for metric in metrics]
        self.params |= {param.key: param.value for param in params}
        self.tags |= {tag.key: tag.value for tag in tags}

    def log_dict(self, _run_id, content, name):
        self.kept[name] = content

    def get_metric_history(self, _run_id, key):
        from mlflow.entities import Metric

        return [Metric(name, value, 0, step) for name, step, value in self.points if name == key]

    def steps(self, key):
        return [step for name, step, _ in self.points if name == key]


def step(number, **facts):
    common = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "tokens_per_second"), 1.0)
    return {"event": "step", **common, "step": number, "total_steps": 4, **facts}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "_FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(sender, "_RETRY_SECONDS", 0.01)
    return TrackedRun(Client(), "run", "1", open_journal("run", RegistrySection(), Home(tmp_path)))


def test_steps_that_mlflow_did_not_take_are_sent_with_the_next(run, caplog):
    run.log_training(step(1))
    run.flush_training()
    run.client.locked = True
    run.log_training(step(2))
    run.flush_training()
    assert "does not take what run run has to say" in caplog.text and "database is locked" in caplog.text
    run.client.locked = False
    run.log_training(step(3))
    run.flush_training()
    assert run.client.steps("train/loss") == [1, 2, 3]


def test_a_run_goes_on_without_its_curve_and_not_with_one_that_mlflow_refused(run, monkeypatch):
    from mlflow.exceptions import MlflowException

    run.client.locked = True
    run.log_training(step(4))
    run.flush_training()
    monkeypatch.setattr(
        run.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(MlflowException("too long", error_code=1000))
    )
    with pytest.raises(RegistryError, match=r"MLflow refused for run run: points train/loss.*too long"):
        run.flush_training()


def test_points_are_sent_in_batches_and_not_one_by_one(run, monkeypatch):
    monkeypatch.setattr(sender, "_FLUSH_SECONDS", 3.0)
    run.set_tags({"first": "1"})
    run.flush_training()
    for number in range(1, 1_001):
        run.log_training(step(number))
    run.flush_training()
    assert run.client.steps("train/loss") == list(range(1, 1_001))
    assert run.client.calls < 50, "4,000 points"


def test_memory_validation_and_utilisation_are_curves_of_their_own_at_their_steps(run):
    run.log_training({"event": "start", "total_steps": 4})
    run.log_training(step(1, memory_bytes=2e9, gpu_utilisation=None, skipped_steps=0))
    run.log_training({"event": "validation", "step": 1, "loss": 2.5})
    run.log_training(step(2, memory_bytes=3e9, gpu_utilisation=97, gradient_norm=None, skipped_steps=1))
    run.flush_training()
    assert ("validation/loss", 1, 2.5) in run.client.points
    assert ("train/memory_bytes", 2, 3e9) in run.client.points
    assert run.client.steps("train/gpu_utilisation") == [2]
    assert run.client.steps("train/gradient_norm") == [1], "a skipped step has none"
    assert ("train/skipped_steps", 2, 1.0) in run.client.points


def test_what_a_resumed_training_tells_again_is_sent_once(run):
    for number in (1, 2):
        run.log_training(step(number))
    run.log_training({"event": "validation", "step": 2, "loss": 2.5})
    run.log_training({"event": "resumed", "step": 2, "total_steps": 4, "digest": "a" * 64})
    for event in (step(1), step(2), {"event": "validation", "step": 2, "loss": 2.5}):
        run.log_training({**event, "again": True})
    run.log_training(step(3))
    run.flush_training()
    assert run.client.steps("train/loss") == [1, 2, 3]
    assert run.client.steps("validation/loss") == [2]


def test_what_befell_a_training_is_a_tag(run):
    run.log_training({"event": "resumed", "step": 2, "total_steps": 4, "digest": "abcdef" * 9})
    run.log_training({"event": "smaller", "step": 3, "from_tokens": 4_096, "to_tokens": 2_048})
    run.log_training({"event": "early_stop", "step": 4, "best_loss": 1.23456})
    run.log_training({"event": "damaged_checkpoint", "name": "step-000003", "damage": "torn", "aside": "/x"})
    run.log_training({"event": "checkpoint_failed", "step": 4, "reason": "No space left on device"})
    run.flush_training()
    assert run.client.tags == {
        "llm_retrain.resumed": "from step 2 of 4, weights abcdefabcdef",
        "llm_retrain.smaller_micro_batch": "in step 3: 2048 instead of 4096 tokens",
        "llm_retrain.early_stop": "after step 4, lowest validation loss 1.2346",
        "llm_retrain.damaged_checkpoint": "step-000003: torn",
        "llm_retrain.checkpoint_failed": "step 4: No space left on device",
    }


def test_the_curve_of_a_run_that_failed_is_there_up_to_its_failure(tmp_path, empty_registry):
    home = empty_registry(Home(tmp_path))
    with pytest.raises(ValueError, match="stopped"), tracked_run(RetrainConfig(), home, "test", {}) as tracked:
        tracked.log_training(step(1, loss=3.5))
        raise ValueError("stopped")
    (point,) = tracked.client.get_metric_history(tracked.run_id, "train/loss")
    assert (point.step, point.value) == (1, 3.5)
    assert tracked.client.get_run(tracked.run_id).info.status == "FAILED"


@pytest.mark.parametrize(
    ("stop", "told"),
    [(KeyboardInterrupt(), "stopped"), (TrainingStopped("step 7 is kept"), "stopped: step 7 is kept")],
)
def test_a_run_that_somebody_stopped_has_not_failed(stop, told, tmp_path, empty_registry):
    home, config = empty_registry(Home(tmp_path)), RetrainConfig()
    with pytest.raises(type(stop)), tracked_run(config, home, "test", {}) as tracked:
        raise stop
    run = tracked.client.get_run(tracked.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["llm_retrain.ended"] == told and "llm_retrain.error" not in run.data.tags
    (line,) = last_runs(config.registry, home, 5)
    assert line["verdict"] == "stopped"


def test_why_a_run_failed_is_not_hidden_by_an_mlflow_that_does_not_answer_and_the_next_run_tells_it(
    tmp_path, empty_registry, monkeypatch, caplog
):
    from mlflow.exceptions import MlflowException

    def refuse(*_, **__):
        raise MlflowException("no answer")

    home = empty_registry(Home(tmp_path))
    with (
        pytest.raises(ValueError, match="the reason"),
        tracked_run(RetrainConfig(), home, "test", {}) as tracked,
    ):
        tracked.flush_training()
        for name in ("log_batch", "set_terminated"):
            monkeypatch.setattr(tracked.client, name, refuse)
        raise ValueError("the reason")
    assert "MLflow has not taken 2 entries of run" in caplog.text
    with tracked_run(RetrainConfig(), home, "test", {}) as after:
        told = after.client.get_run(tracked.run_id)
    assert (told.info.status, told.data.tags["llm_retrain.error"]) == ("FAILED", "ValueError: the reason")


def test_a_run_is_not_begun_where_mlflow_does_not_take_it(tmp_path, empty_registry, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    home = empty_registry(Home(tmp_path))
    connect(RegistrySection(), home)
    monkeypatch.setattr(MlflowClient, "create_run", lambda *_, **__: (_ for _ in ()).throw(MlflowException("500")))
    with (
        pytest.raises(RegistryError, match=r"mlflow\.db does not take a new run: 500"),
        tracked_run(RetrainConfig(), home, "test", {}),
    ):
        raise AssertionError("trained")


def test_the_learning_rate_that_was_taken_is_a_parameter_and_the_settings_are_kept_as_they_were_given(run):
    run.log_config(RetrainConfig.model_validate({"training": {"method": "ia3"}}))
    run.flush_training()
    assert run.client.params["training.learning_rate"] == str(METHODS["ia3"].learning_rate)
    assert run.client.kept["config.json"]["training"]["learning_rate"] is None
    run.log_config(RetrainConfig.model_validate({"training": {"learning_rate": 0.25}}))
    run.flush_training()
    assert run.client.params["training.learning_rate"] == "0.25"


def test_what_an_objective_says_of_a_step_beside_its_loss_is_a_metric_too(run):
    run.log_training({**step(1), "reward_margin": 0.5, "reward_accuracy": 0.75, "ewc_penalty": 2.0})
    run.flush_training()
    taken = {key: value for key, _, value in run.client.points}
    assert {key: taken[f"train/{key}"] for key in ("reward_margin", "reward_accuracy", "ewc_penalty")} == {
        "reward_margin": 0.5,
        "reward_accuracy": 0.75,
        "ewc_penalty": 2.0,
    }


def test_figures_of_each_set_and_whether_the_sets_agree_reach_mlflow(run, monkeypatch):
    seen = Difference(0.1, 0.05, 0.15, 0.001, 0.999)
    part = Part(30, {"candidate": {"rougeL": Interval(0.4, 0.3, 0.5)}}, {"base": {"rougeL": seen}})
    report = EvalReport(Path("/nowhere"), "", 60, {}, {}, {}, sets={"recent": part}, general=part)
    monkeypatch.setattr(run, "log_directory", lambda *_: None)
    sent = run._sender.add
    monkeypatch.setattr(run._sender, "add", lambda entry: entry["kind"] == "table" or sent(entry))
    run.log_report(report)
    finding = Finding("sets agree", "open", "The sets disagree.")
    run.log_decision(GateDecision("inconclusive", "base", ("The sets disagree.",), None, (finding,)))
    run.flush_training()
    points = {name: value for name, _, value in run.client.points}
    assert points["sets/recent/rows"] == points["sets/general/rows"] == 30
    assert points["sets/recent/candidate/rougeL/low"] == 0.3
    assert points["sets/recent/candidate_minus_base/rougeL"] == 0.1
    assert run.client.tags["llm_retrain.sets_agree"] == "open"
    assert "The sets disagree." in run.client.tags["llm_retrain.reasons"]
