"""A sweep in MLflow: a parent run with the table of trials, and a child run a trial with its curves."""

import json
import tempfile
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
from tasks.registry.journal import open_journal
from tasks.registry.leftovers import send_leftovers
from tasks.registry.outage import patiently
from tasks.registry.tracking import ENDED, ERROR, TrackedRun, ended, new_run

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
    client, registry = connect(config.registry, home), config.registry
    send_leftovers(client, registry, home)
    if _reopened(client, run_id):
        opened = client, run_id, experiment_id(client, registry, home), open_journal(run_id, registry, home)
        sweep = SweepRun(*opened)
    else:
        sweep = SweepRun(*new_run(client, registry, home, "sweep", {"llm_retrain.kind": "sweep"}))
        sweep.is_new = True
    sweep.home = home
    with ended(sweep):
        sweep.set_tags(tags)
        if sweep.is_new:
            sweep.log_config(config)
        yield sweep


class SweepRun(TrackedRun):
    """The parent run in its `home`; `is_new` until it is gone on with."""

    home: Home
    is_new = False

    @contextmanager
    def trial(self, number: int, config: RetrainConfig, settings: dict[str, Any], run_id: str) -> "Iterator[TrialLog]":
        """Open the child run of a trial, the earlier one if it goes on; wait for an MLflow that does not answer.

        Args:
            number: the trial's.
            config: the configuration that the settings are laid over.
            settings: the trial's.
            run_id: of the trial's run so far, or empty.
        """
        with ended(patiently(lambda: self._open(number, config, run_id), f"trial {number}", config.registry)) as log:
            if log.run_id != run_id:  # MLflow refuses other values, and checkpoint_seconds may be another later
                log.log_settings(config.training.model_copy(update=used_settings(config.training, settings)))
            yield log

    def _open(self, number: int, config: RetrainConfig, run_id: str) -> "TrialLog":
        """Return the run of a trial; one that was made, and whose answer was lost, is found."""
        opened, name = run_id if _reopened(self.client, run_id) else "", f"trial-{number}"
        if not opened:
            ours = f"tags.`{_PARENT}` = '{self.run_id}' and attributes.run_name = '{name}'"
            found = self.client.search_runs([self.experiment], ours, max_results=1)
            tags = {_PARENT: self.run_id, "llm_retrain.kind": "trial", "llm_retrain.trial": str(number)}
            run = found[0] if found else self.client.create_run(self.experiment, run_name=name, tags=tags)
            opened = run.info.run_id
        log = TrialLog(self.client, opened, self.experiment, open_journal(opened, config.registry, self.home))
        if opened == run_id:
            log.go_on_with_curve()
        return log

    def log_record(self, record: SweepRecord, write_plots: Callable[[SweepRecord, Path], list[Path]]) -> None:
        """Log the table of trials, the best settings, and the pictures that `write_plots` draws into a folder."""
        best = record.best
        rows = [_flat(trial) for trial in record.trials]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        self.log_dict(record.to_json(), "sweep.json")
        if rows:
            self.log_dict({"columns": keys, "data": [[row.get(key) for key in keys] for row in rows]}, _TABLE)
            self.set_tags({"mlflow.loggedArtifacts": json.dumps([{"path": _TABLE, "type": "table"}])})
        if best is not None and best.loss is not None:
            self.log_dict(best.settings, "best.json")
            self.log_metrics({"best_validation_loss": best.loss}, len(rows))
            self.set_tags(
                {
                    "llm_retrain.best_trial": str(best.number),
                    **{f"llm_retrain.best.{key}": str(value) for key, value in best.settings.items()},
                }
            )
        self.set_tags({ENDED: record.ended, "mlflow.note.content": _note(record)})
        with tempfile.TemporaryDirectory(prefix="llm-retrain-sweep-") as folder:
            for path in write_plots(record, Path(folder)):
                self.log_file(path)


class TrialLog(TrackedRun):
    """The child run of a trial."""

    def log_settings(self, training: TrainingSection) -> None:
        """Log every training setting as a parameter, spelled as a retraining's."""
        # Left empty the learning rate is the method's own, and a comparison of trials wants the figure.
        settings = {**training.model_dump(mode="json"), "learning_rate": training.peak_learning_rate}
        spelled = {key: json.dumps(value) if isinstance(value, list) else str(value) for key, value in settings.items()}
        self.log_params({f"training.{key}": text for key, text in spelled.items()})

    def log_end(self, state: str, loss: float | None, reason: str) -> None:
        """Log how the trial ended, and what was not sent yet."""
        self.flush_training()
        if loss is not None:
            self.log_metrics({"validation_loss": loss})
        self.set_tags({"llm_retrain.state": state, "llm_retrain.reason": reason[:4_000]})
        self.status = _STATUS[state]


def tag_version(registry: RegistrySection, version: int, sweep_run_id: str, home: Home) -> None:
    """Say on a registered version which sweep its settings come from; wait for an MLflow that does not answer."""

    def tag() -> None:
        connect(registry, home).set_model_version_tag(registry.model_name, str(version), "sweep", sweep_run_id)

    patiently(tag, "tagging the version", registry)


def _reopened(client: "MlflowClient", run_id: str) -> bool:
    """Let an earlier run go on; False if MLflow has no such run."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return False
    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            return False
        client.update_run(run_id, status="RUNNING")
        for tag in {ERROR, ENDED} & run.data.tags.keys():
            client.delete_tag(run_id, tag)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


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
