"""The runs of a sweep and of its trials in MLflow, new and gone on with."""

from tasks.contracts.config import validate_config
from tasks.contracts.home import Home
from tasks.contracts.methods import METHODS
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


def test_a_trial_shows_the_learning_rate_it_takes_and_the_settings_it_uses(tmp_path, empty_registry):
    home = empty_registry(Home(tmp_path))
    config = config_of({"method": ["lora", "full"], "rank": [4, 8]}, rank=32)
    shown = []
    with sweep_run(config, home, {}, "") as sweep:
        for number, method in enumerate(("lora", "full")):
            with sweep.trial(number, config, {"method": method, "rank": 8}, "") as trial:
                shown.append(sweep.client.get_run(trial.run_id).data.params)
    assert [params["training.learning_rate"] for params in shown] == [
        str(METHODS[m].learning_rate) for m in ("lora", "full")
    ]
    assert [params["training.rank"] for params in shown] == ["8", "32"], "full has none, and it stays as configured"
