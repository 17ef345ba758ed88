"""Runs in MLflow: parameters, the loss curve while it grows, data sets, scores, tables and the verdict."""

import base64
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.contracts.artifacts import DatasetRef, EvalReport, GateDecision, Parity, Part, Review
from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError, TrainingStopped
from tasks.contracts.evaluation_sets import TOLD_RULES
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.registry.connection import connect, experiment_id, tracking_uri
from tasks.registry.journal import Journal, open_journal
from tasks.registry.leftovers import send_leftovers
from tasks.registry.preference_figures import preference_figures
from tasks.registry.sender import Sender
from tasks.registry.training_curve import TrainingCurve

if TYPE_CHECKING:
    from mlflow import MlflowClient

ERROR, ENDED = "llm_retrain.error", "llm_retrain.ended"
"""The tags that say what a run failed of, and that it was stopped; a sweep's `ENDED` also says why it was over."""
_PROFILED_ROWS = 20_000


@contextmanager
def tracked_run(config: RetrainConfig, home: Home, reason: str, tags: dict[str, str]) -> "Iterator[TrackedRun]":
    """Open an MLflow run for a retraining; it ends as `ended` says.

    Raises:
        RegistryError: MLflow does not answer, or does not take a new run.
    """
    client = connect(config.registry, home)
    send_leftovers(client, config.registry, home)
    kind = {"llm_retrain.kind": "retrain", "llm_retrain.reason": reason}
    with ended(TrackedRun(*new_run(client, config.registry, home, "retrain", {**kind, **tags}))) as tracked:
        tracked.log_config(config)
        yield tracked


def new_run(
    client: "MlflowClient", registry: RegistrySection, home: Home, name: str, tags: dict[str, str]
) -> "tuple[MlflowClient, str, str, Journal]":
    """Create a run named after its kind and the time, and return what a `TrackedRun` is made of.

    Raises:
        RegistryError: MLflow does not take it.
    """
    from mlflow.exceptions import MlflowException

    try:
        experiment = experiment_id(client, registry, home)
        run_id = client.create_run(experiment, run_name=time.strftime(f"{name}-%Y%m%d-%H%M%S"), tags=tags).info.run_id
    except MlflowException as error:
        raise RegistryError(f"{tracking_uri(registry, home)} does not take a new run: {error.message}") from error
    return client, run_id, experiment, open_journal(run_id, registry, home)


@contextmanager
def ended(tracked: "Run") -> "Iterator[Run]":
    """End a run after the block: KILLED if somebody stopped it, FAILED with the error if it raises anything else,
    otherwise with the status that it has by then."""
    try:
        yield tracked
    except BaseException as error:
        # What is no Exception is somebody's wish: Ctrl+C, or Prefect's word for a cancel.
        is_stopped = isinstance(error, TrainingStopped) or not isinstance(error, Exception)
        tracked.status = "KILLED" if is_stopped else "FAILED"
        if is_stopped:
            tags = {ENDED: f"stopped: {error}" if str(error) else "stopped"}
        else:
            tags = {ERROR: f"{type(error).__name__}: {error}"}
        tracked.set_tags({key: text[:4_000] for key, text in tags.items()})
        raise
    finally:
        tracked.close()


class TrackedRun:
    """One MLflow run of the loop. What it logs goes through its journal: nobody waits for MLflow, and nothing is lost.

    Args:
        client: of the MLflow that holds the run.
        run_id: the run.
        experiment: the id of its experiment.
        journal: of the run; the run closes it.
    """

    def __init__(self, client: "MlflowClient", run_id: str, experiment: str, journal: Journal) -> None:
        self.client, self.run_id, self.experiment = client, run_id, experiment
        self.status = "FINISHED"
        self._curve, self._sender = TrainingCurve(), Sender(client, journal)

    def log_training(self, event: dict[str, Any]) -> None:
        """Log an event of the training: a point of a curve, or a tag for what befell it."""
        entry = self._curve.entry_of(event)
        if entry is not None:
            self._sender.add(entry, urgent=False)

    def go_on_with_curve(self) -> None:
        """Leave out what a resumed training tells again and an earlier process has told MLflow."""
        for kind, key in (("step", "train/loss"), ("validation", "validation/loss")):
            self._curve.skip(kind, max((p.step for p in self.client.get_metric_history(self.run_id, key)), default=0))

    def flush_training(self) -> None:
        """Give MLflow some seconds for what was not sent yet; what it does not take is sent later.

        Raises:
            RegistryError: MLflow refused something for good.
        """
        self._sender.flush()
        if self._sender.refused:
            raise RegistryError(f"MLflow refused for run {self.run_id}: {'; '.join(self._sender.refused)}")

    def close(self) -> None:
        """End the run with its status."""
        self._sender.add({"kind": "end", "status": self.status, "time": int(time.time() * 1_000)})
        self._sender.close()

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set several tags at once."""
        self._sender.add({"kind": "facts", "params": {}, "tags": tags})

    def log_params(self, params: dict[str, str]) -> None:
        """Log settings of the run; MLflow refuses another value later."""
        self._sender.add({"kind": "facts", "params": params, "tags": {}})

    def log_metrics(self, figures: dict[str, float], step: int = 0) -> None:
        """Log figures that are measured once; those that are not finite are left out."""
        now = int(time.time() * 1_000)
        points = [[key, float(value), now, step] for key, value in figures.items() if math.isfinite(value)]
        self._sender.add({"kind": "points", "metrics": points})

    def log_dict(self, content: dict[str, Any], name: str) -> None:
        """Log a JSON file."""
        self._sender.add({"kind": "dict", "content": content, "name": name})

    def log_directory(self, path: Path, name: str) -> None:
        """Log a directory of the store, which is read when it is sent."""
        self._sender.add({"kind": "directory", "path": str(path), "to": name})

    def log_file(self, path: Path) -> None:
        """Log a small file, which may be gone when it is sent."""
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        self._sender.add({"kind": "file", "base64": content, "name": path.name})

    def log_config(self, config: RetrainConfig) -> None:
        """Log every setting as a parameter, and the whole as `config.json`."""
        settings = config.model_dump(mode="json")
        params = {
            f"{section}.{key}": json.dumps(value) if isinstance(value, list | dict) else str(value)
            for section, values in settings.items()
            for key, value in values.items()
        }
        # Left empty it is the method's own, and a comparison of runs wants the figure.
        params["training.learning_rate"] = str(config.training.peak_learning_rate)
        self.log_params(params)
        self.log_dict(settings, "config.json")

    def log_estimate(self, estimate: dict[str, float]) -> None:
        """Log bytes and seconds of the training, as estimated before it and as measured."""
        self.log_metrics({f"train/{name}": value for name, value in estimate.items()})

    def log_dataset(self, dataset: DatasetRef) -> None:
        """Log the training and evaluation rows as inputs of the run, with the data set's digest.

        MLflow profiles the first `_PROFILED_ROWS` rows of each; the digest is that of all.
        """
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas

        inputs = []
        for split, context in (("train", "training"), ("eval", "evaluation")):
            rows = islice(read_jsonl(dataset.path / f"{split}.jsonl"), _PROFILED_ROWS)
            frame = pd.DataFrame([_flat_row(row) for row in rows])
            digest = dataset.digest if split == "train" else dataset.eval_digest
            logged = from_pandas(frame, name=f"{split} rows", digest=digest[:36])
            inputs.append({"dataset": dict(logged._to_mlflow_entity()), "context": context})
        self._sender.add({"kind": "inputs", "inputs": inputs})
        accounting = {
            "rows_read": dataset.rows_read,
            "train": dataset.train_rows,
            "made": dataset.made_rows,
            "eval": dataset.eval_rows,
            "rejected": dataset.rejected,
            "cleaning_steps": dataset.steps,
            "digest": dataset.digest,
        }
        self.log_dict(accounting, "dataset.json")

    def log_report(self, report: EvalReport) -> None:
        """Log scores with their intervals, the differences, the report, and all answers side by side as a table."""
        figures = _figures(report)
        for name, part in (report.sets | ({"general": report.general} if report.general else {})).items():
            figures[f"sets/{name}/rows"] = part.examples
            figures |= {f"sets/{name}/{figure}": value for figure, value in _figures(part).items()}
        self.log_metrics(figures | preference_figures(report.preferences))
        self.log_directory(report.path, "report")
        columns = ["slice", "prompt", "reference", *report.scores]
        path = str(report.path / "predictions.jsonl")
        self._sender.add({"kind": "table", "path": path, "columns": columns, "name": "predictions.json"})

    def log_parity(self, parity: Parity) -> None:
        """Log what each form of the model makes of the references."""
        figures = {f"parity/{form.name}/nats_a_token": form.nats_a_token for form in parity.forms}
        self.log_metrics(figures | {f"parity/{form.name}/likeliest": form.likeliest for form in parity.forms})

    def log_review(self, review: Review) -> None:
        """Log the page on the verdict, which MLflow shows among the run's artifacts."""
        self.log_directory(review.path, "review")

    def log_decision(self, decision: GateDecision) -> None:
        """Log the verdict and what some rules found as tags, and all of it as `decision.json`."""
        told = {each.rule: each.outcome for each in decision.findings if each.rule in TOLD_RULES}
        self.set_tags(
            {
                **{f"llm_retrain.{rule.replace(' ', '_')}": outcome for rule, outcome in told.items()},
                "llm_retrain.verdict": decision.verdict,
                "llm_retrain.reasons": "\n".join(decision.reasons),
                "mlflow.note.content": f"**{decision.verdict}**\n\n" + "\n".join(f"- {r}" for r in decision.reasons),
            }
        )
        self.log_dict(asdict(decision), "decision.json")


def _figures(part: EvalReport | Part) -> dict[str, float]:
    """Return scores and differences by the names that they have in MLflow."""
    figures: dict[str, float] = {}
    for system, scores in part.scores.items():
        for metric, interval in scores.items():
            name = f"{system}/{metric}"
            figures |= {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}
    for baseline, differences in part.differences.items():
        for metric, interval in differences.items():
            name = f"candidate_minus_{baseline}/{metric}"
            figures |= {name: interval.value, f"{name}/low": interval.low, f"{name}/high": interval.high}
            figures |= {f"{name}/p_better": interval.p_better, f"{name}/p_worse": interval.p_worse}
    return figures


Run = TypeVar("Run", bound=TrackedRun)


def record_drift(verdict: dict[str, Any], version: int, registry: RegistrySection, home: Home) -> str:
    """Record a drift verdict, whether it triggers or not, as an MLflow run; return its id."""
    client = connect(registry, home)
    kind = {"llm_retrain.kind": "monitor", "llm_retrain.champion": str(version)}
    with ended(TrackedRun(*new_run(client, registry, home, "monitor", kind))) as tracked:
        figures = {k: float(v) for k, v in verdict.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        tracked.log_metrics({f"drift/{key}": value for key, value in figures.items()})
        drifted = {"llm_retrain.drifted": str(bool(verdict["drifted"])).lower()}
        tracked.set_tags({**drifted, "llm_retrain.reason": str(verdict["reason"])})
        tracked.log_dict(verdict, "drift.json")
    return tracked.run_id


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
