"""The search with a real Optuna: budget, order, resumption, pruning. Trainings are told, not run, here.

What another process goes on with has Optuna's database in a file; the rest has Optuna's storage in memory, which is ten
times as quick.
"""

import shutil

import pytest

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef
from tasks.contracts.config import validate_config
from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.contracts.sweep_record import SweepRecord
from tasks.training.adapter import TrainingJob, checkpoints_of
from tasks.training.sweep import trial as trials
from tasks.training.sweep.plots import write_plots
from tasks.training.sweep.search import Search
from tasks.training.sweep.trial import TrialRun

SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "rank": [4, 8]}


@pytest.fixture(scope="session")
def _one_thread():
    """Nothing is computed here, and to import torch only for the number of its threads takes seconds."""


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """Optuna's tables with nothing in them: to make them takes a second."""
    import optuna

    path = tmp_path_factory.mktemp("optuna") / "optuna.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


class Sweep:
    """A sweep whose trainings say what a test tells them to."""

    def __init__(self, folder, monkeypatch):
        folder.mkdir()
        write_jsonl(folder / "train.jsonl", [])
        self.folder, self.database, self.monkeypatch = folder, folder / "optuna.db", monkeypatch
        self.store = Store(folder / "store")
        self.told, self.trained = [], []

    def open(self, space=None, training=None, **sweep):
        settings = {"space": SPACE if space is None else space, "startup_trials": 2, **sweep}
        own = {"validation_rows": 4, "validations": 4, **(training or {})}
        self.config = validate_config({"training": own, "sweep": settings})
        base = BaseModelRef(path=self.folder, digest="base", source="dir:tiny")
        rows = DatasetRef(self.folder, "rows", 0, 0, 0, {}, eval_digest="none")
        self.job = TrainingJob(base, rows, self.config.training)
        self.search = Search(self.job, self.config, self.database)
        return self.search

    def run(self, losses, end=None, rows="same", reused=False):
        """Run one trial whose training measures `losses` at its quarters, and then fails with `end` if one is given.

        With `reused` the store has its adapter, so that the training says nothing.
        """

        def train_adapter(job, store, log_path, listener, deadline):
            self.trained.append(job.training)
            folder = checkpoints_of(store, job.store_inputs())
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "step-000001").touch()
            events = [
                {"event": "validation", "step": n, "total_steps": 4, "loss": loss, "rows_digest": rows}
                for n, loss in enumerate(losses, 1)
            ]
            for event in () if reused else events:
                listener(event)
            if end is not None:
                raise end
            shutil.rmtree(folder)
            path = self.folder / f"adapter-{len(self.trained)}"
            path.mkdir()
            write_jsonl(path / "events.jsonl", events)
            return AdapterRef(path, "digest", 1, 1, 1.0, 1.0)

        self.monkeypatch.setattr(trials, "train_adapter", train_adapter)
        trial = self.search.next_trial()
        self.told = []
        run = TrialRun(self.search, trial, self.config, self.store, self.folder / "log")
        ended = run.train(self.job, self.told.append)
        self.search.end_trial(trial, ended.state, ended.loss, ended.reason)
        return trial.number, ended

    @property
    def checkpoints(self):
        return list((self.store.root / ".checkpoints").glob("*"))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep that nobody goes on with in another process."""
    from optuna.storages import InMemoryStorage

    storage = InMemoryStorage()
    monkeypatch.setattr("tasks.training.sweep.search._storage", lambda _: storage)
    return Sweep(tmp_path / "sweep", monkeypatch)


@pytest.fixture
def new_kept_sweep(tmp_path, empty_database, monkeypatch):
    """Return a function that begins a sweep which every `open` reads from its file anew, as another process would.

    No power fails here, so that nothing waits for the disk.
    """
    from sqlalchemy import Engine, event

    def trust_the_power(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    def begin(name="sweep"):
        sweep = Sweep(tmp_path / name, monkeypatch)
        shutil.copy(empty_database, sweep.database)
        return sweep

    event.listen(Engine, "connect", trust_the_power)
    yield begin
    event.remove(Engine, "connect", trust_the_power)


def test_the_first_trial_is_the_configuration_as_it_stands(sweep):
    sweep.open(training={"rank": 8, "learning_rate": 0.003})
    sweep.run([3, 2, 2, 1])
    assert (sweep.trained[0].rank, sweep.trained[0].learning_rate) == (8, 0.003)
    sweep.run([3, 2, 2, 1])
    assert sweep.trained[1].learning_rate != 0.003


def test_the_loss_of_a_trial_is_that_of_the_weights_it_kept(sweep):
    sweep.open(trials=9)
    assert sweep.run([3.0, 1.0, 2.0, 1.5])[1].loss == 1.5
    sweep.open(trials=9, training={"patience": 2})
    assert sweep.run([3.0, 1.0, 2.0, 1.5])[1].loss == 1.0


def test_a_sweep_ends_after_its_trials_failed_and_pruned_ones_counted(new_kept_sweep):
    sweep = new_kept_sweep()
    search = sweep.open(trials=2)
    assert search.why_over() == ""
    sweep.run([3, 2, 2, 1])
    number, ended = sweep.run([], TrainingError("the loss at step 3 is nan; lower training.learning_rate"))
    assert (number, ended.state, ended.reason) == (
        1,
        "failed",
        "the loss at step 3 is nan; lower training.learning_rate",
    )
    assert search.why_over() == "all 2 trials (sweep.trials) have ended"
    assert [(t.number, t.state, t.loss) for t in search.records()] == [(0, "finished", 1.0), (1, "failed", None)]
    assert sweep.checkpoints == [], "nobody goes on with a failed trial"
    assert sweep.open(trials=3).why_over() == "", "with a larger budget the same sweep goes on"
    assert len(sweep.search.records()) == 2


def test_hours_are_those_of_all_trials_and_a_trial_gets_what_is_left(sweep):
    search = sweep.open(trials=0, hours=1)
    trial = search.next_trial()
    trial.set_user_attr("seconds", 3_000.0)
    assert search.seconds_left() == 600 and search.why_over() == ""
    trial.set_user_attr("seconds", 3_700.0)
    search.end_trial(trial, "finished", 1.0, "")
    assert search.why_over() == "the 1 hours (sweep.hours) are over"


@pytest.mark.parametrize("event", ["checkpoint", "validation"])
def test_the_seconds_of_a_training_are_kept_on_its_way_as_nothing_is_after_a_sigkill(sweep, event):
    search, kept = sweep.open(trials=0, hours=1), []

    def train_adapter(job, store, log_path, listener, deadline):
        facts = {"step": 1, "total_steps": 4, "loss": 3.0, "rows_digest": "same"}
        for name in ("step", event):
            listener({"event": name, **facts})
            kept.append(search.records()[0].seconds)
        raise TrainingError("the loss at step 2 is nan")

    sweep.monkeypatch.setattr(trials, "train_adapter", train_adapter)
    TrialRun(search, search.next_trial(), sweep.config, sweep.store, sweep.folder / "log").train(sweep.job, print)
    assert kept[0] == 0 < kept[1]


def test_a_trial_whose_time_is_up_stays_open_and_goes_on_with_its_settings_when_there_is_more(new_kept_sweep):
    sweep = new_kept_sweep()
    sweep.open(trials=0, hours=1e-9)
    number, ended = sweep.run([3.0], TrainingStopped("asked to stop; step 1 is kept"))
    assert (number, ended.state) == (0, "stopped") and "raise sweep.hours" in ended.reason
    assert len(sweep.checkpoints) == 1
    search = sweep.open(trials=0, hours=1)
    assert [(t.state, t.loss) for t in search.records()] == [("stopped", 3.0)]
    number, ended = sweep.run([3.0, 2.0, 2.0, 1.0])  # the first is said again
    assert (number, ended.state, ended.loss) == (0, "finished", 1.0)
    assert sweep.trained[0] == sweep.trained[1]


def test_an_interrupted_sweep_proposes_what_one_that_was_never_interrupted_would(new_kept_sweep):
    def proposals(place, interrupted):
        place.open(trials=9)
        for number in range(4):
            if interrupted:
                if number == 2:
                    with pytest.raises(KeyboardInterrupt):
                        place.run([2.0], KeyboardInterrupt())
                place.open(trials=9)
            place.run([2, 1 + number / 9])
        return [(t.number, t.settings, t.state) for t in place.search.records()]

    uninterrupted = proposals(new_kept_sweep("uninterrupted"), interrupted=False)
    assert uninterrupted == proposals(new_kept_sweep("interrupted"), interrupted=True)


def test_somebody_elses_request_to_stop_ends_the_sweep_and_leaves_the_trial_open(sweep):
    sweep.open(trials=3, hours=1)
    with pytest.raises(TrainingStopped):
        sweep.run([3.0], TrainingStopped("asked to stop"))
    assert [t.state for t in sweep.search.records()] == ["stopped"]


def test_a_trial_that_does_worse_than_the_median_is_stopped_and_its_checkpoints_go(sweep):
    sweep.open(trials=9)
    sweep.run([4, 3, 2, 1])
    sweep.run([4, 3, 2, 1])
    number, ended = sweep.run([9, 8, 7, 6])
    assert (ended.state, ended.reason) == ("pruned", "worse than other trials by the median pruner")
    assert sweep.search.records()[number].loss == 8, "the first validation is not judged"
    assert sweep.checkpoints == []


def test_a_trial_is_not_stopped_after_its_last_step(sweep):
    sweep.open(trials=9)
    sweep.run([4, 3, 2, 1])
    sweep.run([4, 3, 2, 1])
    assert sweep.run([4, 3, 2, 9])[1].state == "finished"


def test_a_trial_whose_adapter_is_in_the_store_is_finished_even_if_it_does_worse_than_the_median(sweep):
    sweep.open(trials=9)
    sweep.run([4, 3, 2, 1])
    sweep.run([4, 3, 2, 1])
    number, ended = sweep.run([9, 8, 7, 6], reused=True)
    assert (ended.state, ended.loss) == ("finished", 6)
    assert [event["loss"] for event in sweep.told] == [9, 8, 7, 6], "its curve is told again"
    assert sweep.search.study.trials[number].intermediate_values == {1: 9, 2: 8, 3: 7, 4: 6}


def test_hyperband_stops_trials_too(sweep):
    sweep.open(trials=30, pruner="hyperband", training={"epochs": 3})
    for _ in range(6):
        sweep.run([4, 3, 2, 1])
    assert "pruned" in [sweep.run([9, 8, 7, 6])[1].state for _ in range(6)]


def test_losses_on_other_rows_are_not_compared(sweep):
    sweep.open(trials=9)
    sweep.run([4, 3, 2, 1])
    for reused in (False, True):
        ended = sweep.run([1], rows="others", reused=reused)[1]
        assert "validation rows of this trial are not those of the trials before" in ended.reason
    assert [t.state for t in sweep.search.records()] == ["finished", "failed", "failed"]


def test_ten_repetitions_in_a_row_end_a_sweep_whose_space_is_not_used_up(sweep):
    search = sweep.open({"rank": {"low": 1, "high": 8}}, trials=0, hours=9)

    def told(rank):
        search.study.enqueue_trial({"rank": rank})
        search.end_trial(search.next_trial(), "finished", 1.0, "")
        return search.why_over()

    assert {told(rank) for rank in (4, 8, *[4] * 9, 5, *[4, 8] * 4, 4)} == {""}
    assert told(5) == "the last 10 trials were repetitions: nothing new is proposed"


def test_a_space_that_is_used_up_ends_the_sweep(sweep):
    search = sweep.open({"rank": [4, 8]}, trials=0, hours=9, training={"rank": 4})
    for _ in range(30):
        if search.why_over():
            break
        sweep.run([4, 3, 2, 1])
    assert search.why_over() == "all 2 settings of sweep.space have been tried"


def test_settings_that_do_not_fit_together_are_a_failed_trial(sweep):
    sweep.open({"alpha": [16, 32], "method": ["prefix", "lora"]}, training={"activation_checkpointing": True})
    sweep.search.study.enqueue_trial({"alpha": 16, "method": "prefix"})
    ended = [sweep.run([4, 3, 2, 1])[1] for _ in range(2)]
    assert "failed" in [each.state for each in ended]
    assert any("training.method prefix" in each.reason for each in ended)


def test_another_space_is_another_sweep_and_another_budget_is_not(sweep):
    name = sweep.open(trials=3).name
    assert sweep.open(trials=30, hours=2).name == name
    assert sweep.open({"rank": [4, 8]}).name != name
    assert sweep.open(training={"alpha": 5}).name != name
    assert sweep.open(training={"rank": 4}).name == name, "what is searched does not come from the configuration"


@pytest.mark.slow  # importing scikit-learn for PED-ANOVA
def test_enough_finished_trials_say_what_the_loss_depends_on(sweep, monkeypatch):
    search = sweep.open(trials=9)
    for number in range(2):
        assert search.importances() == {}, "so few say nothing"
        sweep.run([4, 3, 2, 1 + number])
    monkeypatch.setattr("tasks.training.sweep.search._FEWEST_FINISHED", 2)
    assert search.importances().keys() == SPACE.keys()


def test_the_pictures_are_drawn_for_any_mixture_of_trials(sweep, tmp_path):
    search = sweep.open(trials=9)
    sweep.run([4, 3, 2, 1])
    sweep.run([4, 3, 2, 90.0])
    sweep.run([], TrainingError("x"))
    record = SweepRecord(search.name, "run", "1", "over", search.records(), {"learning_rate": 0.75, "rank": 0.25})
    assert [path.name for path in write_plots(record, tmp_path)] == ["history.png", "importance.png"]
    alone = SweepRecord(search.name, "run", "1", "over", search.records()[2:], {})
    assert [path.name for path in write_plots(alone, tmp_path)] == ["history.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("history.png", "importance.png"))
