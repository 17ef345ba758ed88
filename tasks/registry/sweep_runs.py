"""A sweep in MLflow: a parent run with the table of trials, and a child run a trial with its curves."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.sweep_record import SweepRecord, TrialRecord
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.unused_settings import used_settings
from tasks.registry.connection import connect, experiment_id
from tasks.registry.tracking import ENDED, ERROR, TrackedRun, ended

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PARENT, _TABLE = "mlflow.parentRunId", "trials.json"
_STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "stopped": "KILLED"}


@contextmanager
def sweep_run(config: RetrainConfig, home: Home, tags: dict[str, str], run_id: str) -> "Iterator[SweepRun]":
    """Open the run of a sweep, the earlier one if it goes on.

    Args:
        config: what the trials' settings are laid over; the first call's settings are the parameters.
        home: the state directory.
        tags: set on the run.
        run_id: of the sweep's run so far; empty or no longer in MLflow: a new one.
    """
    client = connect(config.registry, home)
    experiment = experiment_id(client, config.registry, home)
    sweep = SweepRun(client, "", experiment)
    sweep.run_id = sweep.reopened(run_id)
    sweep.is_new = not sweep.run_id
    if sweep.is_new:
        name = time.strftime("sweep-%Y%m%d-%H%M%S")
        sweep.run_id = client.create_run(experiment, run_name=name, tags={"llm_retrain.kind": "sweep"}).info.run_id
    with ended(sweep):
        sweep.set_tags(tags)
        if sweep.is_new:
            sweep.log_config(config)
        yield sweep


class SweepRun(TrackedRun):
    """The parent run; `is_new` until it is gone on with."""

    is_new = False

    def reopened(self, run_id: str) -> str:
        """Let an earlier run go on and return its id; empty if MLflow has no such run."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id) if run_id else None
            if run is None or run.info.lifecycle_stage != "active":
                return ""
            self.client.update_run(run_id, status="RUNNING")
            for tag in {ERROR, ENDED} & run.data.tags.keys():
                self.client.delete_tag(run_id, tag)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        return run_id

    @contextmanager
    def trial(self, number: int, config: RetrainConfig, settings: dict[str, Any], run_id: str) -> "Iterator[TrialLog]":
        """Open the child run of a trial, the earlier one if it goes on.

        Args:
            number: the trial's.
            config: the configuration that the settings are laid over.
            settings: the trial's.
            run_id: of the trial's run so far, or empty.
        """
        opened = self.reopened(run_id)
        is_new = not opened
        if is_new:
            tags = {_PARENT: self.run_id, "llm_retrain.kind": "trial", "llm_retrain.trial": str(number)}
            created = self.client.create_run(self.experiment, run_name=f"trial-{number}", tags=tags)
            opened = created.info.run_id
        log = TrialLog(self.client, opened, self.experiment)
        with ended(log):
            if is_new:  # MLflow refuses other values, and checkpoint_seconds may be another when a trial goes on
                log.log_settings(config.training.model_copy(update=used_settings(config.training, settings)))
            else:
                log.go_on_with_training()
            yield log

    def log_record(self, record: SweepRecord, write_plots: Callable[[SweepRecord, Path], list[Path]]) -> None:
        """Log the table of trials, the best settings, and the pictures that `write_plots` draws into a folder."""
        from mlflow.entities import Metric

        client, now, best = self.client, int(time.time() * 1_000), record.best
        rows = [_flat(trial) for trial in record.trials]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        client.log_dict(self.run_id, record.to_json(), "sweep.json")
        if rows:
            # Not `log_table`, which appends: a sweep that goes on would have its first trials twice.
            table = {"columns": keys, "data": [[row.get(key) for key in keys] for row in rows]}
            client.log_dict(self.run_id, table, _TABLE)
            self.set_tags({"mlflow.loggedArtifacts": json.dumps([{"path": _TABLE, "type": "table"}])})
        if best is not None and best.loss is not None:
            client.log_dict(self.run_id, best.settings, "best.json")
            client.log_batch(self.run_id, metrics=[Metric("best_validation_loss", best.loss, now, len(rows))])
            self.set_tags(
                {
                    "llm_retrain.best_trial": str(best.number),
                    **{f"llm_retrain.best.{key}": str(value) for key, value in best.settings.items()},
                }
            )
        self.set_tags({ENDED: record.ended, "mlflow.note.content": _note(record)})
        with tempfile.TemporaryDirectory(prefix="llm-retrain-sweep-") as folder:
            for path in write_plots(record, Path(folder)):
                client.log_artifact(self.run_id, str(path))


class TrialLog(TrackedRun):
    """The child run of a trial."""

    def log_settings(self, training: TrainingSection) -> None:
        """Log every training setting as a parameter, spelled as a retraining's."""
        from mlflow.entities import Param

        # Left empty the learning rate is the method's own, and a comparison of trials wants the figure.
        settings = {**training.model_dump(mode="json"), "learning_rate": training.peak_learning_rate}
        spelled = {key: json.dumps(value) if isinstance(value, list) else str(value) for key, value in settings.items()}
        self.client.log_batch(self.run_id, params=[Param(f"training.{key}", text) for key, text in spelled.items()])

    def log_end(self, state: str, loss: float | None, reason: str) -> None:
        """Log how the trial ended, and what was not sent yet."""
        from mlflow.entities import Metric

        self.flush_training()
        if loss is not None:
            now = int(time.time() * 1_000)
            self.client.log_batch(self.run_id, metrics=[Metric("validation_loss", loss, now, 0)])
        self.set_tags({"llm_retrain.state": state, "llm_retrain.reason": reason[:4_000]})
        self.status = _STATUS[state]


def tag_version(registry: RegistrySection, version: int, sweep_run_id: str, home: Home) -> None:
    """Say on a registered version which sweep its settings come from."""
    client: MlflowClient = connect(registry, home)
    client.set_model_version_tag(registry.model_name, str(version), "sweep", sweep_run_id)


def _flat(trial: TrialRecord) -> dict[str, Any]:
    facts = asdict(trial)
    settings = facts.pop("settings")
    return {"number": facts.pop("number"), "state": facts.pop("state"), "loss": facts.pop("loss"), **settings, **facts}


def _note(record: SweepRecord) -> str:
    best, ended = record.best, f"; {record.ended}" if record.ended else ""  # empty while further trials are to come
    if best is None:
        return f"No trial has finished{ended}."
    lines = [f"- {key}: {value}" for key, value in best.settings.items()]
    return f"Best: trial {best.number}, validation loss {best.loss:.4f}{ended}.\n\n" + "\n".join(lines)
