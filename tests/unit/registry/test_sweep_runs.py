"""The runs of a sweep and of its trials in MLflow, new and gone on with."""

import pytest

from tasks.contracts.config import validate_config
from tasks.contracts.home import Home
from tasks.contracts.methods import METHODS
from tasks.contracts.sweep_record import SweepRecord
from tasks.registry import outage
from tasks.registry.sweep_runs import sweep_run


def config_of(space=None, **training):
    space = space or {"learning_rate": {"low": 1e-4, "high": 1e-2}, "rank": [4, 8]}
    return validate_config({"training": {"validation_rows": 4, **training}, "sweep": {"space": space}})


def test_a_trial_goes_on_in_its_run_with_settings_that_may_change_on_the_way(tmp_path, empty_registry):
    home, settings = empty_registry(Home(tmp_path)), {"learning_rate": 0.002, "rank": 8}
    before, after = config_of(checkpoint_seconds=60), config_of(checkpoint_seconds=5, processes=2)
    with sweep_run(before, home, {}, "") as sweep, sweep.trial(0, before, settings, "") as trial:
        trial.status = "KILLED"
    with sweep_run(after, home, {}, sweep.run_id) as again, again.trial(0, after, settings, trial.run_id) as resumed:
        pass
    assert (again.run_id, resumed.run_id) == (sweep.run_id, trial.run_id)
    run = again.client.get_run(trial.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["training.checkpoint_seconds"], run.data.params["training.rank"]) == ("60.0", "8")


def test_a_trial_that_goes_on_has_every_point_of_its_curves_once(tmp_path, empty_registry):
    home, config = empty_registry(Home(tmp_path)), config_of()
    steps = [{"event": "step", "step": n, "total_steps": 4, "loss": 1.0 / n} for n in (1, 2, 3, 4)]
    measured = [{"event": "validation", "step": n, "total_steps": 4, "loss": 0.5} for n in (2, 4)]
    run_ids = ["", ""]
    for told in ([*steps[:3], measured[0]], [*steps, *measured]):  # a resumed training tells all again
        with sweep_run(config, home, {}, run_ids[0]) as sweep, sweep.trial(0, config, {}, run_ids[1]) as trial:
            for event in told:
                trial.log_training(event)
            trial.flush_training()
        run_ids = [sweep.run_id, trial.run_id]
    curves = {
        name: [point.step for point in trial.client.get_metric_history(trial.run_id, name)]
        for name in ("train/loss", "validation/loss")
    }
    assert curves == {"train/loss": [1, 2, 3, 4], "validation/loss": [2, 4]}


def test_a_sweep_that_was_stopped_says_so_until_it_goes_on(tmp_path, empty_registry):
    home, config = empty_registry(Home(tmp_path)), config_of()
    under_way = SweepRecord("study", "run", "1", "", (), {})
    with pytest.raises(KeyboardInterrupt), sweep_run(config, home, {}, "") as sweep:
        sweep.log_record(under_way, lambda *_: [])
        raise KeyboardInterrupt
    stopped = sweep.client.get_run(sweep.run_id)
    assert (stopped.info.status, stopped.data.tags["llm_retrain.ended"]) == ("KILLED", "stopped")
    assert stopped.data.tags["mlflow.note.content"] == "No trial has finished."
    with sweep_run(config, home, {}, sweep.run_id) as again:
        assert "llm_retrain.ended" not in again.client.get_run(sweep.run_id).data.tags


def test_a_trial_shows_the_learning_rate_it_takes_and_the_settings_it_uses(tmp_path, empty_registry):
    home = empty_registry(Home(tmp_path))
    config = config_of({"method": ["lora", "full"], "rank": [4, 8]}, rank=32)
    shown = []
    with sweep_run(config, home, {}, "") as sweep:
        for number, method in enumerate(("lora", "full")):
            with sweep.trial(number, config, {"method": method, "rank": 8}, "") as trial:
                trial.flush_training()
                shown.append(sweep.client.get_run(trial.run_id).data.params)
    assert [params["training.learning_rate"] for params in shown] == [
        str(METHODS[m].learning_rate) for m in ("lora", "full")
    ]
    assert [params["training.rank"] for params in shown] == ["8", "32"], "full has none, and it stays as configured"


def test_a_trial_that_goes_on_tells_its_curve_once_although_the_training_tells_it_again(tmp_path, empty_registry):
    home, config, settings = empty_registry(Home(tmp_path)), config_of(), {"rank": 8}
    told = [{"event": "step", "step": number, "loss": 1.0} for number in (1, 2, 3)]
    told += [{"event": "validation", "step": 2, "loss": 2.0}]
    with sweep_run(config, home, {}, "") as sweep, sweep.trial(0, config, settings, "") as trial:
        trial.log_training(told[0])
        trial.log_training(told[3])
    with sweep_run(config, home, {}, sweep.run_id) as again, again.trial(0, config, settings, trial.run_id) as resumed:
        for event in told:
            resumed.log_training(event)
    history = again.client.get_metric_history
    assert [point.step for point in history(trial.run_id, "train/loss")] == [1, 2, 3]
    assert [point.step for point in history(trial.run_id, "validation/loss")] == [2]


def test_a_trial_whose_run_was_made_although_the_answer_was_lost_goes_into_that_run(
    tmp_path, empty_registry, monkeypatch
):
    from mlflow.exceptions import MlflowException

    monkeypatch.setattr(outage, "_POLL_SECONDS", 0.01)
    home, config = empty_registry(Home(tmp_path)), config_of()
    with sweep_run(config, home, {}, "") as sweep:
        create, failures = sweep.client.create_run, iter([MlflowException("the answer was lost")])

        def create_run(*args, **kwargs):
            made = create(*args, **kwargs)
            for failure in failures:
                raise failure
            return made

        monkeypatch.setattr(sweep.client, "create_run", create_run)
        with sweep.trial(0, config, {"rank": 8}, ""):
            pass
        runs = sweep.client.search_runs([sweep.experiment], "tags.`llm_retrain.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FINISHED"]
