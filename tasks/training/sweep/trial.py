"""One trial: trained like any adapter, measured on the held-out rows, and stopped early if others do better."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.artifacts import AdapterRef
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import ConfigError, TrainingError, TrainingStopped
from tasks.contracts.store import Store
from tasks.contracts.sweep_record import TrialState
from tasks.contracts.worker import EnoughHeard
from tasks.training.adapter import (
    TrainingJob,
    checkpoints_of,
    loss_of_kept_weights,
    train_adapter,
    training_steps,
    validation_losses,
)
from tasks.training.sweep.search import ROWS, SECONDS, Search
from tasks.training.sweep.space import with_settings

if TYPE_CHECKING:
    from optuna.trial import Trial

Listener = Callable[[dict[str, Any]], None]


class _Pruned(EnoughHeard):
    """The trial does worse than others at the same place."""


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended; see `TrialRecord`."""

    state: TrialState
    loss: float | None = None
    reason: str = ""


@dataclass
class TrialRun:
    """A trial on its way.

    Attributes:
        search: the sweep that it belongs to.
        trial: Optuna's side of it.
        config: the configuration that its settings are laid over.
        store: has the adapter, if the same settings were trained before.
        log_path: where the training process's standard error goes.
    """

    search: Search
    trial: "Trial"
    config: RetrainConfig
    store: Store
    log_path: Path

    def train(self, job: TrainingJob, listener: Listener) -> TrialEnd:
        """Train until it is finished, pruned, failed, or the sweep's time is up.

        Args:
            job: the training without the trial's settings.
            listener: called with every "start", "step" and "validation", also with those of an adapter reused.

        Raises:
            TrainingStopped: somebody else asked to stop; the trial stays open, and goes on with the next sweep.
        """
        before, started = self.trial.user_attrs.get(SECONDS, 0.0), time.monotonic()
        deadline = started + self.search.seconds_left() if self.search.sweep.hours else None

        def heard(event: dict[str, Any]) -> None:
            if event["event"] in ("validation", "checkpoint"):  # what a SIGKILL costs is what it has to do again
                self.trial.set_user_attr(SECONDS, before + time.monotonic() - started)
            listener(event)

        try:
            return self._trained(job, heard, deadline)
        finally:
            self.trial.set_user_attr(SECONDS, before + time.monotonic() - started)

    def _trained(self, job: TrainingJob, listener: Listener, deadline: float | None) -> TrialEnd:
        try:
            job = replace(job, training=with_settings(self.config, self.trial.params).training)
        except ConfigError as error:
            return TrialEnd("failed", reason=str(error))
        is_reused = True

        def heard(event: dict[str, Any]) -> None:
            nonlocal is_reused
            is_reused = False
            listener(event)
            if event["event"] == "validation" and self._is_hopeless(event):
                raise _Pruned

        try:
            adapter = train_adapter(job, self.store, self.log_path, heard, deadline)
        except _Pruned:
            self._forget(job)
            return TrialEnd("pruned", reason=f"worse than other trials by the {self.search.sweep.pruner} pruner")
        except TrainingError as error:
            if deadline is not None and time.monotonic() >= deadline:
                return TrialEnd("stopped", reason="the time of the sweep was up; raise sweep.hours and it goes on")
            if isinstance(error, TrainingStopped):
                raise
            self._forget(job)
            return TrialEnd("failed", reason=str(error))
        if is_reused:
            try:
                self._tell_again(adapter, listener)
            except TrainingError as error:
                return TrialEnd("failed", reason=str(error))
        losses = [each["loss"] for each in validation_losses(adapter)]
        return TrialEnd("finished", loss_of_kept_weights(losses, job.training))

    def _tell_again(self, adapter: AdapterRef, listener: Listener) -> None:
        """Tell what was measured when an adapter of the store was trained; it is not pruned, its loss is known.

        Raises:
            TrainingError: it was measured on other rows than the trials before.
        """
        events = [*training_steps(adapter), *validation_losses(adapter)]
        for event in sorted(events, key=lambda event: event["step"]):
            listener(event)
            if event["event"] == "validation":
                self._report(event)

    def _is_hopeless(self, event: dict[str, Any]) -> bool:
        """Report a validation loss to Optuna, and ask whether going on is worth it; at the end it is."""
        is_new = self._report(event)  # else said again by a resumed training
        return is_new and event["step"] < event["total_steps"] and self.trial.should_prune()

    def _report(self, event: dict[str, Any]) -> bool:
        """Report a validation loss to Optuna, if it has none of this share of the rows yet, and say so.

        Raises:
            TrainingError: it was measured on other rows than the trials before.
        """
        self._check_rows(event["rows_digest"])
        training = with_settings(self.config, self.trial.params).training
        share = event["step"] / event["total_steps"]
        place = max(1, round(share * training.epochs * training.validations))
        if place in self.search.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values:
            return False
        self.trial.report(event["loss"], place)
        return True

    def _check_rows(self, rows_digest: str) -> None:
        """Refuse to compare losses on different rows.

        Raises:
            TrainingError: other rows fit into this trial's context than into those before.
        """
        study = self.search.study
        known = study.user_attrs.get(ROWS)
        if known is None:
            study.set_user_attr(ROWS, rows_digest)
        elif known != rows_digest:
            raise TrainingError(
                "the validation rows of this trial are not those of the trials before, so its loss cannot be compared; "
                "lower training.max_length_tokens until the rows that fit do not depend on what sweep.space changes"
            )

    def _forget(self, job: TrainingJob) -> None:
        """Remove the checkpoints of a trial that nobody will go on with."""
        shutil.rmtree(checkpoints_of(self.store, job.store_inputs()), ignore_errors=True)
