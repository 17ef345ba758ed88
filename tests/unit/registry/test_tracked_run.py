"""What becomes of a run when MLflow does not answer for a moment, or for good."""

import pytest

from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry import tracking
from tasks.registry.tracking import TrackedRun, tracked_run


class Client:
    """An MLflow client that takes metrics, except while it is locked."""

    def __init__(self):
        self.locked, self.steps = False, []

    def log_batch(self, _run_id, metrics=()):
        from mlflow.exceptions import MlflowException

        if self.locked:
            raise MlflowException("database is locked")
        self.steps += [metric.step for metric in metrics if metric.key == "train/loss"]


def step(number):
    facts = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "tokens_per_second"), 1.0)
    return {**facts, "step": number, "total_steps": 4}


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(tracking, "_FLUSH_SECONDS", -1.0)  # send every step
    return TrackedRun(Client(), "run", "1")


def test_steps_that_mlflow_did_not_take_are_sent_with_the_next(run, caplog):
    run.log_step(step(1))
    run.client.locked = True
    run.log_step(step(2))
    assert "behind by 1 steps, which are sent again: database is locked" in caplog.text
    run.client.locked = False
    run.log_step(step(3))
    assert run.client.steps == [1, 2, 3]


def test_the_last_step_must_arrive(run):
    from mlflow.exceptions import MlflowException

    run.client.locked = True
    with pytest.raises(MlflowException, match="database is locked"):
        run.log_step(step(4))


def test_why_a_run_failed_is_not_hidden_by_an_mlflow_that_does_not_answer(
    tmp_path, empty_registry, monkeypatch, caplog
):
    from mlflow.exceptions import MlflowException

    def refuse(*_, **__):
        raise MlflowException("no answer")

    with (
        pytest.raises(ValueError, match="the reason"),
        tracked_run(RetrainConfig(), empty_registry(Home(tmp_path)), "test", {}) as tracked,
    ):
        monkeypatch.setattr(tracked.client, "log_batch", refuse)
        raise ValueError("the reason")
    assert "is not in MLflow: no answer" in caplog.text
