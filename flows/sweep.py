"""The sweep: training settings are searched under a budget, and the best go through the line like any candidate's."""

import logging
from typing import Any, NamedTuple

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.outcome import Outcome
from flows.retrain import find_or_train, message_of, prepare_ground, prepared_run
from flows.rollout import settle
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import TrainingError
from tasks.contracts.home import Home
from tasks.contracts.progress import Report, stage_progress
from tasks.contracts.store import Store
from tasks.contracts.sweep_record import SweepRecord, best_of
from tasks.data.ingest import Place
from tasks.data.replay import check_replay
from tasks.registry.sweep_runs import SweepRun, sweep_run, tag_version
from tasks.serving.steps import prepare_server
from tasks.training.adapter import TrainingJob
from tasks.training.sweep.plots import write_plots
from tasks.training.sweep.search import Search
from tasks.training.sweep.space import check_sweep, planned_settings, trials_or_minutes, with_settings
from tasks.training.sweep.steps import train_trial
from tasks.training.sweep.trial import TrialEnd, TrialRun

log = logging.getLogger("llm_retrain.sweep")


class SweepOutcome(NamedTuple):
    """What the search came to, and what became of its best trial."""

    record: SweepRecord
    outcome: Outcome


@flow(name="sweep", validate_parameters=True)
def sweep(
    config: RetrainConfig = RetrainConfig(),  # noqa: B008
    reason: str = "started by hand",
    like_champion: bool = False,
) -> Any:
    """Train trials with settings from `sweep.space`, then evaluate, gate and roll out the one with the lowest loss.

    Args:
        config: what to do; `sweep` says what is searched and for how long, all else is as for a retraining.
        reason: why, for MLflow and the ledger.
        like_champion: where `config` has a default, the champion's setting is taken.

    Returns:
        A `SweepOutcome`, in a state named as a retraining's.
    """
    with prepared_run(config, like_champion) as (home, config):
        check_sweep(config)
        record = search_settings(config, home, reason)
        outcome = judge_best(record, config, home, reason)
    return Completed(name=outcome.status.capitalize(), message=message_of(outcome), data=SweepOutcome(record, outcome))


def search_settings(config: RetrainConfig, home: Home, reason: str) -> SweepRecord:
    """Train trials until the budget is used up.

    What can refuse a run is asked before, as for a retraining: the best trial would come to it hours later.

    Raises:
        TrainingError: no trial finished.
    """
    store = Store(home.store)
    check_replay(config.training.replay, Place(home, store, config.serving))
    prepare_server(config, home)
    settle(config, home)
    ground = prepare_ground(planned_settings(config), home, store, lambda dataset: None, config.sweep.space)
    job = ground.job(config)
    search = Search(job, config, home.sweeps)
    tags = {"llm_retrain.reason": reason, "prefect.flow_run_id": str(flow_run.id), "llm_retrain.study": search.name}
    with sweep_run(config, home, tags, search.run_id) as run:
        search.remember_run(run.run_id)
        if run.is_new:
            run.log_dataset(ground.dataset)
        record = _record(search, run, search.why_over())
        with stage_progress("sweep", trials_or_minutes(config.sweep), "sweep-progress") as report:
            while not record.ended:
                trial_run = TrialRun(search, search.next_trial(), config, store, home.logs / "training.log")
                end = _follow_trial(trial_run, job, run, report)
                over = "the time is up" if end.state == "stopped" else search.why_over()
                record = _record(search, run, over)
                run.log_record(record, write_plots)
        if record.best is None:
            raise TrainingError(_no_best(record))
    log.info("Sweep ended: %s; trial %d is the best", record.ended, record.best.number)
    return record


def judge_best(record: SweepRecord, config: RetrainConfig, home: Home, reason: str) -> Outcome:
    """Take the best trial through the line; its adapter is in the store, so nothing is trained again."""
    assert record.best is not None
    best = with_settings(config, record.best.settings)
    outcome = find_or_train(best, home, reason, {"llm_retrain.sweep": record.run_id})
    tag_version(config.registry, outcome.version, record.run_id, home)
    return outcome


def _follow_trial(trial_run: TrialRun, job: TrainingJob, run: SweepRun, report: Report) -> TrialEnd:
    """Train a trial, with its run in MLflow and its progress shown."""
    search, trial, config = trial_run.search, trial_run.trial, trial_run.config
    before = [each for each in search.records() if each.number != trial.number]
    best = best_of(tuple(before))
    best_so_far = f"; best {best.loss:.4f} (trial {best.number})" if best else ""
    minutes = sum(each.seconds for each in before) / 60
    with run.trial(trial.number, config, trial.params, search.run_of(trial)) as child:
        search.remember_run(child.run_id, trial)

        def heard(event: dict[str, Any]) -> None:
            child.log_training(event)
            if event["event"] == "step":
                done = len(before) if config.sweep.trials else round(minutes + event["seconds"] / 60)
                step = f"trial {trial.number}, step {event['step']} of {event['total_steps']}"
                report(done, f"{step}, loss {event['loss']:.3f}{best_so_far}")

        end = train_trial(trial.number, trial_run, job, heard)
        child.log_end(end.state, end.loss, end.reason)
    search.end_trial(trial, end.state, end.loss, end.reason)
    settings = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in trial.params.items()
    )
    loss = f", validation loss {end.loss:.4f}" if end.loss is not None else ""
    log.info("Trial %d (%s) %s%s%s", trial.number, settings, end.state, loss, f": {end.reason}" if end.reason else "")
    return end


def _record(search: Search, run: SweepRun, ended: str) -> SweepRecord:
    return SweepRecord(search.name, run.run_id, run.experiment, ended, search.records(), search.importances())


def _no_best(record: SweepRecord) -> str:
    states = [trial.state for trial in record.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    last = record.trials[-1]
    return (
        f"no trial of the sweep finished ({counts}), so there is no candidate; trial {last.number}, the last one: "
        f"{last.reason}"
    )
