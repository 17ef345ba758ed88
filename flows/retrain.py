"""The retraining flow: from sources to a served version, one call a stage and one gate."""

import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.answers import generate_predictions
from flows.approval_form import ask_again
from flows.background import background_of
from flows.conclusion import conclude
from flows.finished import find_finished
from flows.locks import waiting_lock
from flows.log_lines import record_log_lines
from flows.outcome import Outcome, outcome_of
from flows.rollout import settle
from tasks.contracts.artifacts import BaseModelRef, DatasetRef, Predictions, RegisteredVersion, ServableModel
from tasks.contracts.config import RetrainConfig, chosen_settings, validate_config
from tasks.contracts.errors import DataError, EnvironmentProblem, RegistryError
from tasks.contracts.home import RUN_BYTES, Home
from tasks.contracts.store import Store, damage_of, read_manifest
from tasks.contracts.unused_settings import warn_of_unused_settings
from tasks.data.ingest import Place
from tasks.data.replay import check_replay
from tasks.data.steps import build_dataset_task, ingest_rows, prepare_replay
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.judging.steps import ask_judge, check_judge
from tasks.evaluation.steps import (
    ask_general,
    build_report,
    decide,
    look_for_canaries,
    prepare_general,
    write_review,
)
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import (
    Candidate,
    find_version_by_alias,
    register_version,
    settings_of,
)
from tasks.serving.steps import build_servable, check_parity, prepare_server
from tasks.training.adapter import TrainingJob
from tasks.training.steps import plan_training, prepare_base_model, prepare_teacher, train_adapter

log = logging.getLogger("llm_retrain.retrain")

LOCK_TIMEOUT_SECONDS = 24 * 3600.0
"""Training on rows of one's own takes hours; the nightly run of tomorrow has its own turn."""


@flow(name="retrain", validate_parameters=True)
def retrain(
    config: RetrainConfig = RetrainConfig(),  # noqa: B008
    reason: str = "started by hand",
    like_champion: bool = False,
) -> Any:
    """Train a candidate, compare it with the champion in the form that serves, and promote it if it is better.

    Args:
        config: what to do.
        reason: why, for MLflow and the ledger.
        like_champion: where `config` has a default, the champion's setting is taken. A schedule or a drift
            shall renew the model in production, from its own sources, and not replace it by the quickstart's.

    Returns:
        An `Outcome`, in a state named Promoted, Waiting, Rejected, Inconclusive or Unchanged.
    """
    with prepared_run(config, like_champion) as (home, config):
        outcome = find_or_train(config, home, reason)
    return Completed(name=outcome.status.capitalize(), message=message_of(outcome), data=outcome)


@contextmanager
def prepared_run(config: RetrainConfig, like_champion: bool) -> Iterator[tuple[Home, RetrainConfig]]:
    """Give the home to this run alone, and the configuration that it follows.

    Args:
        config: as the run was started with it.
        like_champion: complete it by the champion's settings.

    Raises:
        EnvironmentProblem: there is no room for a run, or another one does not end.
    """
    record_log_lines()
    home = Home.from_environment()
    with one_at_a_time(home):
        check_room(home)
        yield home, completed_by_champion(config, home) if like_champion else config


def find_or_train(config: RetrainConfig, home: Home, reason: str, tags: dict[str, str] | None = None) -> Outcome:
    """Return the outcome of an earlier run that this one would repeat, or train and judge; `tags` go to the run."""
    warn_of_unused_settings(config.training)
    finished = find_finished(config, home)
    if finished is None:
        return train_and_judge(config, home, reason, tags)
    record_unchanged(finished, config, home, reason)
    if finished.status == "waiting":
        ask_again(home, config)
    return finished


def message_of(outcome: Outcome) -> str:
    """Say in one line what a run came to and why."""
    if outcome.overruled:
        return (
            f"the model of version {outcome.version} was {outcome.overruled} by a person, and becomes champion by hand"
        )
    if outcome.status == "unchanged":
        return f"version {outcome.version} already holds the result ({outcome.verdict})"
    if outcome.status == "waiting":
        return (
            f"version {outcome.version} waits for a decision until {outcome.waits_until}. {' '.join(outcome.reasons)}"
        )
    return " ".join(outcome.reasons)


@dataclass(frozen=True)
class Ground:
    """What a candidate stands on, and what the systems that it is compared with answer."""

    base: BaseModelRef
    dataset: DatasetRef
    champion: RegisteredVersion | None
    answers: dict[str, Predictions]
    replay: DatasetRef | None
    teacher: BaseModelRef | None
    general: DatasetRef | None = None
    general_answers: dict[str, Predictions] = field(default_factory=dict)

    @property
    def trained_on(self) -> tuple[DatasetRef, ...]:
        """What a candidate learns from."""
        return (self.dataset,) if self.replay is None else (self.dataset, self.replay)

    def job(self, config: RetrainConfig) -> TrainingJob:
        """Return the training that a configuration asks for on this ground."""
        return TrainingJob(
            self.base, self.dataset, config.training, config.serving.system_prompt, self.replay, self.teacher
        )


def prepare_ground(
    config: RetrainConfig,
    home: Home,
    store: Store,
    on_dataset: Callable[[DatasetRef], None],
    searched: Collection[str] = (),
) -> Ground:
    """Do all that comes before training: base model, rows, the plan, and the answers of base and champion.

    A judge's key that is not there is said here too: the judge is asked last.

    Args:
        config: what to do.
        home: the state directory.
        store: keeps what is made.
        on_dataset: called with the rows before anything is asked about them.
        searched: the training settings that a sweep searches; see `plan_training`.
    """
    check_judge(config)
    champion = find_version_by_alias(config.registry, "champion", home)
    base = prepare_base_model(config, home, store)
    teacher = prepare_teacher(config, home, store)
    place = Place(home, store, config.serving)
    dataset = prepare_dataset(config, place, base)
    replay = prepare_replay(config.training.replay, dataset, place)
    on_dataset(dataset)
    ground = Ground(base, dataset, champion, {}, replay, teacher)
    general = prepare_general(config, ground.trained_on, store)
    plan_training(ground.job(config), home, store, searched)
    systems = {"base": build_servable(base, None, config, home, store)}
    if champion is not None:
        systems["champion"] = servable_of(champion)
    answers = {
        name: generate_predictions(name, system, dataset, config, home, store, champion)
        for name, system in systems.items()
    }
    general_answers = ask_general(systems, general, home, store)
    return replace(ground, answers=answers, general=general, general_answers=general_answers)


def train_and_judge(config: RetrainConfig, home: Home, reason: str, tags: dict[str, str] | None = None) -> Outcome:
    """Walk the line from the sources to the verdict, and roll out what is better.

    What can refuse a run is asked before anything is trained: ports, the registry, the judge's key, the champion's
    directory, rows, a base or a teacher that cannot be used, settings that the base rules out, memory that does not
    suffice, a base that the builder cannot build, and prompts that it cannot answer.
    """
    store = Store(home.store)
    check_replay(config.training.replay, Place(home, store, config.serving))
    prepare_server(config, home)
    settle(config, home)
    with tracked_run(config, home, reason, {"prefect.flow_run_id": str(flow_run.id), **(tags or {})}) as run:
        ground = prepare_ground(config, home, store, run.log_dataset)
        base, dataset, champion = ground.base, ground.dataset, ground.champion
        adapter = train_adapter(ground.job(config), home, store, run.log_training)
        run.flush_training()
        run.set_tags({f"llm_retrain.{name}": str(count) for name, count in adapter.long_rows.items()})
        run.log_estimate(adapter.estimate)
        candidate = build_servable(base, adapter, config, home, store)
        parity = check_parity(base, adapter, candidate, dataset, config, home, store)
        run.log_parity(parity)
        own_answers = generate_predictions("candidate", candidate, dataset, config, home, store, champion)
        answers = {**ground.answers, "candidate": own_answers}
        evidence = gather_evidence(candidate, answers, ground, config, home, store)
        report = build_report(answers, config, store, champion, ground.trained_on, evidence)
        run.log_report(report)
        decision = decide(report, config, champion is not None)
        run.log_decision(decision)
        background = background_of(config, base, dataset, adapter, answers, champion, parity)
        review = write_review(report, decision, config, background, store)
        run.log_review(review)
        made_of = Candidate(base, dataset, adapter, candidate, own_answers, report, decision, review, ground.replay)
        version = register_version(made_of, config, run, champion, home)
        concluded = conclude(version, decision, champion, config, home, reason)
        places = {
            "mlflow_run": run.run_id,
            "mlflow_experiment": run.experiment,
            "prefect_flow_run": str(flow_run.id),
            "report": str(review.path / "review.html"),
            **({"approval_flow_run": concluded.asked_in} if concluded.asked_in else {}),
        }
        outcome = outcome_of(report, decision, version, concluded.served, config, places)
        return replace(outcome, long_rows=adapter.long_rows, **concluded.facts())


def gather_evidence(
    candidate: ServableModel,
    answers: dict[str, Predictions],
    ground: Ground,
    config: RetrainConfig,
    home: Home,
    store: Store,
) -> Evidence:
    """Find out what else the gate wants to know: the general-ability set, canaries, and what a judge says."""
    return Evidence(
        general=ground.general_answers | ask_general({"candidate": candidate}, ground.general, home, store),
        memorised=look_for_canaries(candidate, config, home, store) if config.training.canaries else None,
        preferences=ask_judge(answers, ground.champion, config, store) if config.evaluation.judge.url else (),
    )


def completed_by_champion(config: RetrainConfig, home: Home) -> RetrainConfig:
    """Return `config` with the champion's settings where it has the defaults; itself before the first champion.

    Not only where it says nothing: a form sends every setting it shows.
    """
    champion = find_version_by_alias(config.registry, "champion", home)
    if champion is None:
        return config
    settings = settings_of(champion, config.registry, home)
    for section, values in chosen_settings(config).items():
        settings[section] = {**settings.get(section, {}), **values}
    log.info("Settings are those of version %d, the champion, where this run has the defaults", champion.version)
    return validate_config(settings)


def record_unchanged(finished: Outcome, config: RetrainConfig, home: Home, reason: str) -> None:
    """Leave a run in MLflow: a schedule or a drift asked for a retraining, and this is what came of it."""
    tags = {
        "prefect.flow_run_id": str(flow_run.id),
        "llm_retrain.verdict": "unchanged",
        "llm_retrain.version": str(finished.version),
    }
    with tracked_run(config, home, reason, tags):
        log.info("Nothing to do: version %d already holds the result", finished.version)


def prepare_dataset(config: RetrainConfig, place: Place, base: BaseModelRef | None) -> DatasetRef:
    """Ingest the sources, and the evaluation sources if there are any, and split them.

    Raises:
        DataError: there are too few evaluation rows for any verdict but "inconclusive".
    """
    rows = ingest_rows(config.data, place, config.data.sources)
    held_out = config.data.evaluation_sources
    evaluation_rows = ingest_rows(config.data, place, held_out) if held_out else None
    dataset = build_dataset_task(rows, evaluation_rows, config.data, place, base)
    if dataset.eval_rows < config.gate.min_examples:
        raise DataError(
            f"gate.min_examples is {config.gate.min_examples} and there are {dataset.eval_rows} rows to evaluate on: "
            f"no run could be promoted; add rows to data.{'evaluation_sources' if held_out else 'sources'} "
            "or lower gate.min_examples"
        )
    return dataset


def servable_of(version: RegisteredVersion) -> ServableModel:
    """Return the servable that a version was registered with.

    Raises:
        RegistryError: it is lost or damaged.
    """
    damage = damage_of(version.servable_path)
    if not damage and read_manifest(version.servable_path)["digest"] != version.servable_digest:
        damage = "its digest is not the registered one"
    if damage:
        raise RegistryError(
            f"the champion, version {version.version}, cannot be compared with: {version.servable_path} is damaged or "
            f"lost ({damage}); return to another version with llm-retrain rollback or llm-retrain promote N"
        )
    return ServableModel(path=version.servable_path, digest=version.servable_digest, engine=version.tags["engine"])


def one_at_a_time(home: Home) -> AbstractContextManager[None]:
    """Let one retraining of a home happen at a time; a second one says so and waits.

    They share one device, and the second would be judged against a champion that the first is about to replace.
    """
    busy = EnvironmentProblem(
        f"another retraining of {home.root} is under way for more than {LOCK_TIMEOUT_SECONDS / 3600:g} h; "
        "try again when it has ended"
    )
    return waiting_lock(home, "retraining", LOCK_TIMEOUT_SECONDS, busy)


def check_room(home: Home, free_bytes: Callable[[], int] | None = None) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        EnvironmentProblem: there is less free space than a run of the quickstart writes.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    free = free_bytes() if free_bytes else shutil.disk_usage(home.root).free
    if free < RUN_BYTES:
        raise EnvironmentProblem(
            f"{home.root} has {free / 1e9:.1f} GB free and a run needs about {RUN_BYTES / 1e9:.0f} GB; "
            "free space or point LLM_RETRAIN_HOME elsewhere"
        )


__all__ = ["Outcome", "retrain"]
