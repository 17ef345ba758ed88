"""Runs in MLflow: parameters, the loss curve while it grows, data sets, scores, tables and the verdict."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from tasks.contracts.artifacts import DatasetRef, EvalReport, GateDecision, Review
from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import TrainingStopped
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.registry.connection import connect, experiment_id
from tasks.registry.training_curve import TrainingCurve

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("llm_retrain.registry")

ERROR, ENDED = "llm_retrain.error", "llm_retrain.ended"
"""The tags that say what a run failed of, and that it was stopped; a sweep's `ENDED` also says why it was over."""
_PROFILED_ROWS = 20_000


@contextmanager
def tracked_run(config: RetrainConfig, home: Home, reason: str, tags: dict[str, str]) -> "Iterator[TrackedRun]":
    """Open an MLflow run for a retraining; it ends as `ended` says."""
    client = connect(config.registry, home)
    run = client.create_run(
        experiment_id(client, config.registry, home),
        run_name=time.strftime("retrain-%Y%m%d-%H%M%S"),
        tags={"llm_retrain.kind": "retrain", "llm_retrain.reason": reason, **tags},
    )
    tracked = TrackedRun(client, run.info.run_id, run.info.experiment_id)
    with ended(tracked):
        tracked.log_config(config)
        yield tracked


@contextmanager
def ended(tracked: "TrackedRun") -> Iterator[None]:
    """End a run after the block: KILLED if somebody stopped it, FAILED with the error if it raises anything else,
    otherwise with the status that it has by then."""
    try:
        yield
    except BaseException as error:
        # What is no Exception is somebody's wish: Ctrl+C, or Prefect's word for a cancel.
        is_stopped = isinstance(error, TrainingStopped) or not isinstance(error, Exception)
        if is_stopped:
            tags = {ENDED: f"stopped: {error}" if str(error) else "stopped"}
        else:
            tags = {ERROR: f"{type(error).__name__}: {error}"}
        try:
            tracked.flush_training()
            tracked.set_tags({key: text[:4_000] for key, text in tags.items()})
            tracked.client.set_terminated(tracked.run_id, status="KILLED" if is_stopped else "FAILED")
        except Exception as unwritten:  # it must not hide why the run failed
            log.warning("The failure of run %s is not in MLflow: %s", tracked.run_id, unwritten)
        raise
    tracked.client.set_terminated(tracked.run_id, status=tracked.status)


class TrackedRun:
    """One MLflow run of the loop."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment: str) -> None:
        self.client, self.run_id, self.experiment = client, run_id, experiment
        self.status = "FINISHED"
        self._curve = TrainingCurve(client, run_id)

    def log_training(self, event: dict[str, Any]) -> None:
        """Log an event of the training: a point of a curve, or a tag for what befell it."""
        self._curve.add(event)

    def go_on_with_training(self) -> None:
        """Log only what comes after the points that the run has: it is an earlier one that goes on."""
        self._curve.go_on()

    def flush_training(self) -> None:
        """Send what was not sent yet.

        Raises:
            MlflowException: MLflow did not take it.
        """
        self._curve.flush()

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set several tags at once."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_config(self, config: RetrainConfig) -> None:
        """Log every setting as a parameter, and the whole as `config.json`."""
        from mlflow.entities import Param

        settings = config.model_dump(mode="json")
        params = [
            Param(f"{section}.{key}", json.dumps(value) if isinstance(value, list | dict) else str(value))
            for section, values in settings.items()
            for key, value in values.items()
            if (section, key) != ("training", "learning_rate")
        ]
        # Left empty it is the method's own, and a comparison of runs wants the figure.
        params.append(Param("training.learning_rate", str(config.training.peak_learning_rate)))
        self.client.log_batch(self.run_id, params=params)
        self.client.log_dict(self.run_id, settings, "config.json")

    def log_estimate(self, estimate: dict[str, float]) -> None:
        """Log bytes and seconds of the training, as estimated before it and as measured."""
        from mlflow.entities import Metric

        now = int(time.time() * 1_000)
        metrics = [Metric(f"train/{name}", float(value), now, 0) for name, value in estimate.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def log_dataset(self, dataset: DatasetRef) -> None:
        """Log the training and evaluation rows as inputs of the run, with the data set's digest.

        MLflow profiles the first `_PROFILED_ROWS` rows of each; the digest is that of all.
        """
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for split, context in (("train", "training"), ("eval", "evaluation")):
            rows = islice(read_jsonl(dataset.path / f"{split}.jsonl"), _PROFILED_ROWS)
            frame = pd.DataFrame([_flat_row(row) for row in rows])
            digest = dataset.digest if split == "train" else dataset.eval_digest
            logged = from_pandas(frame, name=f"{split} rows", digest=digest[:36])
            inputs.append(DatasetInput(logged._to_mlflow_entity(), [InputTag("mlflow.data.context", context)]))
        self.client.log_inputs(self.run_id, inputs)
        accounting = {
            "rows_read": dataset.rows_read,
            "train": dataset.train_rows,
            "made": dataset.made_rows,
            "eval": dataset.eval_rows,
            "rejected": dataset.rejected,
            "cleaning_steps": dataset.steps,
            "digest": dataset.digest,
        }
        self.client.log_dict(self.run_id, accounting, "dataset.json")

    def log_report(self, report: EvalReport) -> None:
        """Log scores with their intervals, the differences, the report, and all answers side by side as a table."""
        from mlflow.entities import Metric

        now = int(time.time() * 1_000)
        figures: dict[str, float] = {}
        for system, scores in report.scores.items():
            for metric, interval in scores.items():
                figures |= {
                    f"{system}/{metric}": interval.value,
                    f"{system}/{metric}/low": interval.low,
                    f"{system}/{metric}/high": interval.high,
                }
        for baseline, differences in report.differences.items():
            for metric, interval in differences.items():
                name = f"candidate_minus_{baseline}/{metric}"
                figures |= {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}
                figures |= {f"{name}/p_better": interval.p_better, f"{name}/p_worse": interval.p_worse}
        points = [Metric(key, value, now, 0) for key, value in figures.items() if math.isfinite(value)]
        self.client.log_batch(self.run_id, metrics=points)
        self.client.log_artifacts(self.run_id, str(report.path), "report")
        table = list(read_jsonl(report.path / "predictions.jsonl"))
        columns = ["slice", "prompt", "reference", *report.scores]
        self.client.log_table(self.run_id, {key: [row[key] for row in table] for key in columns}, "predictions.json")

    def log_review(self, review: Review) -> None:
        """Log the page on the verdict, which MLflow shows among the run's artifacts."""
        self.client.log_artifacts(self.run_id, str(review.path), "review")

    def log_decision(self, decision: GateDecision) -> None:
        """Log the verdict as a tag and the whole decision as `decision.json`."""
        self.set_tags(
            {
                "llm_retrain.verdict": decision.verdict,
                "llm_retrain.reasons": "\n".join(decision.reasons),
                "mlflow.note.content": f"**{decision.verdict}**\n\n" + "\n".join(f"- {r}" for r in decision.reasons),
            }
        )
        self.client.log_dict(self.run_id, asdict(decision), "decision.json")


def record_drift(verdict: dict[str, Any], version: int, registry: RegistrySection, home: Home) -> str:
    """Record a drift verdict, whether it triggers or not, as an MLflow run; return its id."""
    from mlflow.entities import Metric, RunTag

    client = connect(registry, home)
    run = client.create_run(
        experiment_id(client, registry, home),
        run_name=time.strftime("monitor-%Y%m%d-%H%M%S"),
        tags={"llm_retrain.kind": "monitor", "llm_retrain.champion": str(version)},
    )
    now = int(time.time() * 1_000)
    figures = {k: float(v) for k, v in verdict.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(f"drift/{key}", value, now, 0) for key, value in figures.items()],
        tags=[
            RunTag("llm_retrain.drifted", str(bool(verdict["drifted"])).lower()),
            RunTag("llm_retrain.reason", str(verdict["reason"])),
        ],
    )
    client.log_dict(run.info.run_id, verdict, "drift.json")
    client.set_terminated(run.info.run_id, status="FINISHED")
    return str(run.info.run_id)


def last_runs(registry: RegistrySection, home: Home, count: int) -> list[dict[str, str]]:
    """Return the most recent runs, newest first: when, what kind, which verdict and version, and why."""
    client = connect(registry, home)
    runs = client.search_runs(
        [experiment_id(client, registry, home)],
        filter_string="tags.`llm_retrain.kind` != 'trial'",  # the sweep that they belong to is one line
        max_results=count,
        order_by=["attributes.start_time DESC"],
    )
    lines = []
    for run in runs:
        tags = run.data.tags
        started = datetime.fromtimestamp(run.info.start_time / 1_000, tz=UTC)
        verdict = tags.get("llm_retrain.verdict") or ("drift" if tags.get("llm_retrain.drifted") == "true" else "")
        lines.append(
            {
                "run_id": run.info.run_id,
                "started": started.isoformat(timespec="seconds"),
                "kind": tags.get("llm_retrain.kind", ""),
                "verdict": verdict or _STATES.get(run.info.status) or run.info.status.lower(),
                "version": tags.get("llm_retrain.version", ""),
                "reason": tags.get("llm_retrain.reason", ""),
            }
        )
    return lines


_STATES = {"KILLED": "stopped"}
"""MLflow's word for a run that somebody stopped sounds like an accident."""


def _flat_row(row: dict[str, Any]) -> dict[str, str]:
    prompt = "\n\n".join(message["content"] for message in row["messages"][:-1])
    return {"id": row["id"], "prompt": prompt, "answer": row["messages"][-1]["content"], "slice": row["slice"]}
