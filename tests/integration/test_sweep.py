"""A small sweep for real: training processes, Optuna's database, MLflow; what a retraining tests is left out."""

import os
from types import SimpleNamespace

import psutil
import pytest
from tiny_model import make_tiny_base_model

from flows import sweep as flow
from flows.retrain import Ground
from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.config import validate_config
from tasks.contracts.errors import TrainingError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.registry.connection import connect, experiment_id
from tasks.registry.tracking import last_runs
from tasks.training.adapter import TrainingJob, train_adapter, validation_losses
from tasks.training.sweep.search import Search
from tasks.training.sweep.space import with_settings
from tasks.training.sweep.trial import TrialEnd

pytestmark = pytest.mark.integration

RATES = (1e-3, 5e-3, 1e30, 1e-5, 5e-3)
"""As configured; better, and interrupted once; too high; too low to go on with; the second one again."""
TRAINING = {
    "rank": 4,
    "learning_rate": RATES[0],
    "epochs": 6,
    "batch_rows": 4,
    "device": "cpu",
    "precision": "fp32",
    "validation_rows": 4,
    "validations": 2,
}


def row(number):
    return {
        "id": f"{number:064d}",
        "messages": [
            {"role": "user", "content": f"Say number {number}."},
            {"role": "assistant", "content": "Return the sum of two numbers."},
        ],
        "slice": "all",
    }


def config_of(trials):
    space = {"learning_rate": {"low": 1e-5, "high": 1e30, "log": True}, "rank": [4, 8]}
    return validate_config({"training": TRAINING, "sweep": {"trials": trials, "space": space, "startup_trials": 1}})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home, and what a sweep stands on: a tiny model and 20 rows."""
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = tmp_path_factory.mktemp("sweep")
    base = BaseModelRef(path=make_tiny_base_model(folder / "tiny"), digest="base", source="dir:tiny")
    rows = folder / "dataset"
    rows.mkdir()
    write_jsonl(rows / "train.jsonl", map(row, range(20)))
    write_jsonl(rows / "eval.jsonl", map(row, range(20, 24)))
    dataset = DatasetRef(rows, "rows", 24, 20, 4, {}, eval_digest="none")
    yield SimpleNamespace(home=Home(folder / "home"), ground=Ground(base, dataset, None, {}, None, None))
    del os.environ["OMP_NUM_THREADS"]


@pytest.fixture
def begin(place, monkeypatch):
    """Return a function that searches; what `retrain` is tested for, and Prefect, are left out."""
    for name in ("prepare_server", "settle"):
        monkeypatch.setattr(flow, name, lambda *_: None)

    def prepare_ground(*given):
        assert set(given[-1]) == {"learning_rate", "rank"}, "what is searched is no reason to stop"
        return place.ground

    monkeypatch.setattr(flow, "prepare_ground", prepare_ground)
    train_trial = flow.train_trial.fn

    def search(trials, interrupted_at=None):
        heard = []

        def watched(number, trial_run, job, listener):
            def listen(event):
                listener(event)
                heard.append((number, event["event"]))
                if (number, event.get("step")) == interrupted_at:
                    raise KeyboardInterrupt

            return train_trial(number, trial_run, job, listen)

        monkeypatch.setattr(flow, "train_trial", watched)
        return flow.search_settings(config_of(trials), place.home, "a reason"), heard

    return search


def search_of(place):
    config = config_of(5)
    return Search(TrainingJob(place.ground.base, place.ground.dataset, config.training), config, place.home.sweeps)


def training_processes():
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "tasks.training.process" in " ".join(child.cmdline())]


def test_an_interrupted_sweep_goes_on_past_bad_trials_and_mlflow_shows_parent_and_children(place, begin):
    study = search_of(place).study
    for rate in RATES[1:]:  # the first is the configuration as it stands
        study.enqueue_trial({"learning_rate": rate, "rank": 4})
    with pytest.raises(KeyboardInterrupt):
        begin(5, interrupted_at=(1, 2))
    assert training_processes() == []
    assert [trial.state for trial in search_of(place).records()] == ["finished", "stopped"]
    record, heard = begin(5)
    assert heard[0][0] == 1 and (1, "resumed") in heard, "the first trial stands, the second goes on where it was"
    assert [trial.state for trial in record.trials] == ["finished", "finished", "failed", "pruned", "finished"]
    assert [trial.settings["learning_rate"] for trial in record.trials] == list(RATES)
    first, second, bad, _, again = record.trials
    assert record.best == second and again.loss == second.loss < first.loss
    assert "lower training.learning_rate" in bad.reason and bad.loss is None
    assert len(list(Store(place.home.store).entries("adapter"))) == 2, "what was trained before is not trained again"
    assert list((place.home.store / ".checkpoints").glob("*")) == []
    mlflow_shows(record, place)
    the_best_needs_no_training(record, place)
    assert begin(5)[0].trials == record.trials, "asked for again, it only says what came of it"


def mlflow_shows(record, place):
    registry = config_of(5).registry
    client = connect(registry, place.home)
    runs = client.search_runs([experiment_id(client, registry, place.home)])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_id == record.run_id
    assert {child.info.run_id for child in children} == {trial.run_id for trial in record.trials}
    by_id = {child.info.run_id: child for child in children}
    shown = [by_id[trial.run_id] for trial in record.trials]
    assert [run.info.status for run in (parent, *shown)] == [
        *("FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED", "FINISHED")
    ]
    for run, trial in zip(shown, record.trials, strict=True):
        assert float(run.data.params["training.learning_rate"]) == trial.settings["learning_rate"]
        assert run.data.tags["llm_retrain.state"] == trial.state
        assert run.data.tags["llm_retrain.reason"] == trial.reason
        assert "llm_retrain.error" not in run.data.tags
    for run in (shown[0], shown[1], shown[4]):
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        assert {metric.step for metric in curve} == set(range(1, 25))
        assert len({metric.step for metric in client.get_metric_history(run.info.run_id, "validation/loss")}) == 12
    assert shown[1].data.metrics["validation_loss"] == record.best.loss == parent.data.metrics["best_validation_loss"]
    assert (parent.data.tags["llm_retrain.best_trial"], parent.data.tags["llm_retrain.best.rank"]) == ("1", "4")
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"trials.json", "best.json", "sweep.json", "history.png"}
    assert [line["kind"] for line in last_runs(registry, place.home, 9)] == ["sweep"]


def the_best_needs_no_training(record, place):
    """What goes through the line is the adapter that was measured."""
    training = with_settings(config_of(5), record.best.settings).training
    events = []
    job = TrainingJob(place.ground.base, place.ground.dataset, training)
    adapter = train_adapter(job, Store(place.home.store), place.home.logs / "log", events.append)
    assert events == []
    measured = validation_losses(adapter)
    assert (measured[-1]["step"], measured[-1]["loss"]) == (24, record.best.loss)


def test_a_sweep_in_which_nothing_finished_ends_in_one_sentence(place, begin, monkeypatch):
    monkeypatch.setitem(TRAINING, "alpha", 9)  # another sweep
    failed = TrialEnd("failed", reason="the loss at step 3 is nan; lower training.learning_rate")
    monkeypatch.setattr(flow.TrialRun, "train", lambda *_: failed)
    with pytest.raises(TrainingError) as raised:
        begin(2)
    assert str(raised.value) == (
        "no trial of the sweep finished (2 failed), so there is no candidate; trial 1, the last one: the loss at step "
        "3 is nan; lower training.learning_rate"
    )
    assert last_runs(config_of(2).registry, place.home, 1)[0]["verdict"] == "failed"
