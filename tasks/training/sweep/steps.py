"""The Prefect task of a sweep."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.training.adapter import TrainingJob
from tasks.training.sweep.trial import Listener, TrialEnd, TrialRun


@task(name="train trial", task_run_name="trial-{number}", cache_policy=NO_CACHE)
def train_trial(number: int, trial_run: TrialRun, job: TrainingJob, listener: Listener) -> TrialEnd:
    """Train one trial in a process of its own; `number` names it in Prefect."""
    assert number == trial_run.trial.number
    return trial_run.train(job, listener)
