"""The retraining flow: from sources to a served version, one call a stage and one gate."""

import shutil
from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.finished import find_finished
from flows.outcome import Outcome, outcome_of
from flows.rollout import roll_out
from tasks.contracts.artifacts import DatasetRef, RegisteredVersion, ServableModel
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.data.steps import build_dataset_task, ingest_rows
from tasks.evaluation.steps import build_report, decide, generate_predictions
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import Candidate, find_version_by_alias, register_version
from tasks.serving.steps import build_servable, prepare_server
from tasks.training.steps import prepare_base_model, train_adapter

MIN_FREE_BYTES = 3_000_000_000
"""A run of the quickstart writes 2.3 GB: base, merged weights, two servables, and one copy in the repository."""


@flow(name="retrain", validate_parameters=True)
def retrain(config: RetrainConfig = RetrainConfig(), reason: str = "started by hand") -> Any:  # noqa: B008
    """Train a candidate, compare it with the champion in the form that serves, and promote it if it is better.

    Returns:
        An `Outcome`, in a state named Promoted, Rejected, Inconclusive or Unchanged.
    """
    home = Home.from_environment()
    check_room(home)
    finished = find_finished(config, home)
    if finished is not None:
        message = f"version {finished.version} already holds the result ({finished.verdict})"
        return Completed(name="Unchanged", message=message, data=finished)
    store = Store(home.store)
    prepare_server(config, home)
    champion = find_version_by_alias(config.registry, "champion", home)
    with tracked_run(config, home, reason, {"prefect.flow_run_id": str(flow_run.id)}) as run:
        base = prepare_base_model(config, home, store)
        dataset = prepare_dataset(config, store)
        run.log_dataset(dataset)
        adapter = train_adapter(base, dataset, config, home, store, run.log_step)
        candidate = build_servable(base, adapter, config, home, store)
        systems = {"base": build_servable(base, None, config, home, store)}
        if champion is not None:
            systems["champion"] = servable_of(champion)
        systems["candidate"] = candidate
        answers = {name: generate_predictions(name, system, dataset, home, store) for name, system in systems.items()}
        report = build_report(answers, config, store)
        run.log_report(report)
        decision = decide(report, config, champion is not None)
        run.log_decision(decision)
        made_of = Candidate(base, dataset, adapter, candidate, answers["candidate"], report, decision)
        version = register_version(made_of, config, run, champion, home)
        served = roll_out(version, config, home, reason) if decision.verdict == "promote" else None
        places = {
            "mlflow_run": run.run_id,
            "mlflow_experiment": run.experiment,
            "prefect_flow_run": str(flow_run.id),
            "report": str(report.path / "report.md"),
        }
        outcome = outcome_of(report, decision, version, served, config, places)
    return Completed(name=outcome.status.capitalize(), message=" ".join(decision.reasons), data=outcome)


def prepare_dataset(config: RetrainConfig, store: Store) -> DatasetRef:
    """Ingest the sources, and the evaluation sources if there are any, and split them."""
    rows = ingest_rows(config.data, store, config.data.sources)
    held_out = config.data.evaluation_sources
    evaluation_rows = ingest_rows(config.data, store, held_out) if held_out else None
    return build_dataset_task(rows, evaluation_rows, config.data, store)


def servable_of(version: RegisteredVersion) -> ServableModel:
    """Return the servable that a version was registered with."""
    return ServableModel(path=version.servable_path, digest=version.servable_digest, engine=version.tags["engine"])


def check_room(home: Home, free_bytes: Callable[[], int] | None = None) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        EnvironmentProblem: there is less free space than a run of the quickstart writes.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    free = free_bytes() if free_bytes else shutil.disk_usage(home.root).free
    if free < MIN_FREE_BYTES:
        raise EnvironmentProblem(
            f"{home.root} has {free / 1e9:.1f} GB free and a run needs about {MIN_FREE_BYTES / 1e9:.0f} GB; "
            "free space or point LLM_RETRAIN_HOME elsewhere"
        )


__all__ = ["Outcome", "retrain"]
