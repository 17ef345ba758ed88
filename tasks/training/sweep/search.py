"""The search: Optuna proposes settings and remembers what came of them, in sqlite, so that a sweep can go on."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.config import RetrainConfig
from tasks.contracts.jsonl import digest_of
from tasks.contracts.sweep_record import TrialRecord, TrialState
from tasks.training.adapter import TrainingJob
from tasks.training.sweep.space import configured_settings, count_settings, distributions, most_epochs

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

SECONDS, REASON, RUN_ID, ROWS = "seconds", "reason", "mlflow_run", "rows_digest"
"""What is kept with a trial beside its settings and losses; the last one with the study."""

_STOPPED = "stopped"
_FIRST_JUDGED = 2
"""The first validation often falls into the warm-up of the learning rate: the median says nothing about it yet."""
_FEWEST_FINISHED = 10
"""PED-ANOVA compares the best tenth of the finished trials with all of them: with fewer that is no trial at all."""
_REPEATS = 10
"""So many trials in a row with settings that were tried before: the sampler has nothing new to propose."""


class Search:
    """One sweep in Optuna's storage; the same configuration and the same rows find it again."""

    def __init__(self, job: TrainingJob, config: RetrainConfig, database: Path) -> None:
        """Open or begin a sweep.

        Args:
            job: the training without a sweep; what is not searched stays as it says.
            config: the sweep's section, and what the settings are laid over.
            database: Optuna's sqlite file.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = config.sweep
        self._distributions = distributions(config.sweep.space)
        self.name = f"{config.registry.model_name}-{_key(job, config)[:16]}"
        self.study: Study = optuna.create_study(
            storage=_storage(database),
            study_name=self.name,
            direction="minimize",
            pruner=_pruner(config),
            load_if_exists=True,
        )
        settings = configured_settings(config)
        if settings is not None and not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(settings)  # the best is never worse than no sweep

    @property
    def run_id(self) -> str:
        """The sweep's run in MLflow; empty before it has one."""
        return str(self.study.user_attrs.get(RUN_ID, ""))

    def run_of(self, trial: "Trial") -> str:
        """Return a trial's run in MLflow; empty before it has one."""
        return str(trial.user_attrs.get(RUN_ID, ""))

    def remember_run(self, run_id: str, trial: "Trial | None" = None) -> None:
        """Keep the sweep's run in MLflow, or a trial's; they go on when the sweep does."""
        (trial or self.study).set_user_attr(RUN_ID, run_id)

    def next_trial(self) -> "Trial":
        """Return the trial that an interruption left, or else a new one.

        The sampler's random numbers are those of the trial's number, so that an interrupted sweep proposes what one
        that was never interrupted would have.
        """
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        self.study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.sweep.startup_trials,
            seed=int(digest_of([self.sweep.seed, len(trials)])[:8], 16),
        )
        for left in trials:
            if left.state == optuna.trial.TrialState.RUNNING:
                if left.params.keys() == self._distributions.keys():
                    return optuna.trial.Trial(self.study, left._trial_id)
                self.study.tell(left.number, state=optuna.trial.TrialState.FAIL)  # killed before it had its settings
        return self.study.ask(self._distributions)

    def end_trial(self, trial: "Trial", state: TrialState, loss: float | None, reason: str) -> None:
        """Keep how a trial ended; one that was stopped stays open, and goes on when there is time again."""
        from optuna.trial import TrialState as Ends

        trial.set_user_attr(REASON, reason)
        if state == _STOPPED:
            return
        ends = {"finished": Ends.COMPLETE, "pruned": Ends.PRUNED, "failed": Ends.FAIL}
        self.study.tell(trial, loss if state == "finished" else None, state=ends[state])

    def why_over(self) -> str:
        """Say why no further trial is begun; empty while there are trials, hours and untried settings."""
        sweep, ended = self.sweep, [trial for trial in self.records() if trial.state != _STOPPED]
        if sweep.trials and len(ended) >= sweep.trials:
            return f"all {sweep.trials} trials (sweep.trials) have ended"
        if sweep.hours and self.seconds_left() <= 0:
            return f"the {sweep.hours:g} hours (sweep.hours) are over"
        tried = {digest_of(trial.settings) for trial in ended}
        if len(tried) == count_settings(sweep.space):
            return f"all {len(tried)} settings of sweep.space have been tried"
        earlier, last = ended[:-_REPEATS], ended[-_REPEATS:]
        if earlier and {digest_of(t.settings) for t in last} <= {digest_of(t.settings) for t in earlier}:
            return f"the last {_REPEATS} trials were repetitions: nothing new is proposed"
        return ""

    def seconds_left(self) -> float:
        """Return the training time that is left of `sweep.hours`; it is no limit if that is 0."""
        return self.sweep.hours * 3_600 - sum(trial.seconds for trial in self.records())

    def records(self) -> tuple[TrialRecord, ...]:
        """Return the trials that were begun, in their order."""
        from optuna.trial import TrialState as Ends

        trials = self.study.get_trials(deepcopy=False)
        return tuple(_record(trial) for trial in trials if trial.state != Ends.WAITING and trial.params)

    def importances(self) -> dict[str, float]:
        """Return what share of the differences in loss each setting explains, by PED-ANOVA (Watanabe et al., 2023).

        Empty where the finished trials are too few or too alike for it to say anything.
        """
        import optuna

        if sum(trial.state == "finished" for trial in self.records()) < _FEWEST_FINISHED:
            return {}
        with suppress(ValueError, RuntimeError, UserWarning), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Optuna's way to say that its figures mean nothing
            return dict(optuna.importance.get_param_importances(self.study))
        return {}


def _record(trial: "FrozenTrial") -> TrialRecord:
    from optuna.trial import TrialState as Ends

    states: dict[Any, TrialState] = {Ends.COMPLETE: "finished", Ends.PRUNED: "pruned", Ends.FAIL: "failed"}
    measured = trial.intermediate_values
    last = measured[max(measured)] if measured else None
    kept = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, "stopped"),
        settings=dict(trial.params),
        loss=trial.value if trial.state == Ends.COMPLETE else last,
        seconds=kept.get(SECONDS, 0.0),
        reason=kept.get(REASON, ""),
        run_id=kept.get(RUN_ID, ""),
    )


def _storage(database: Path) -> "BaseStorage":
    import optuna

    database.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{database}")


def _pruner(config: RetrainConfig) -> "BasePruner":
    """Make the pruner; its unit is the validation, of which every trial has as many a pass over the rows."""
    import optuna

    sweep = config.sweep
    if sweep.pruner == "none":
        return optuna.pruners.NopPruner()
    if sweep.pruner == "hyperband":
        most = round(most_epochs(config) * config.training.validations)
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(1, most))
    return optuna.pruners.MedianPruner(n_startup_trials=sweep.startup_trials, n_warmup_steps=_FIRST_JUDGED)


def _key(job: TrainingJob, config: RetrainConfig) -> str:
    """Return the digest of what must be the same for a sweep to go on: all but its budget."""
    inputs = job.store_inputs()
    training = {key: value for key, value in inputs["training"].items() if key not in config.sweep.space}
    rules = config.sweep.model_dump(mode="json", exclude={"trials", "hours"})
    return digest_of({**inputs, "training": training, "sweep": rules})
