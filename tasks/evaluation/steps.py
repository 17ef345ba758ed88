"""The Prefect tasks of the evaluation stage."""

import logging
from dataclasses import replace
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.contracts.artifacts import (
    DatasetRef,
    EvalReport,
    GateDecision,
    Memorised,
    Predictions,
    RegisteredVersion,
    Review,
    ServableModel,
)
from tasks.contracts.asking import EvaluationServer
from tasks.contracts.config import RetrainConfig
from tasks.contracts.evaluation_sets import TOLD_RULES
from tasks.contracts.home import Home
from tasks.contracts.progress import stage_progress
from tasks.contracts.store import Store
from tasks.contracts.worker import Event
from tasks.evaluation import gate, general_set, generation, memorisation, report
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.review import review
from tasks.evaluation.review.page import Background
from tasks.evaluation.side_by_side import learned_files

log = logging.getLogger("llm_retrain.evaluation")


@task(name="generate predictions", cache_policy=NO_CACHE)
def generate_predictions(
    system: str,
    servable: ServableModel,
    dataset: DatasetRef,
    config: RetrainConfig,
    home: Home,
    store: Store,
    server: EvaluationServer | None = None,
    *learned: Path,
) -> Predictions:
    """Ask one system (base, champion or candidate) every evaluation row, in a process or through a server.

    Rows that stand in `learned`, what the champion was trained on, are not asked again: nobody is compared on them.
    """
    generated_now = False
    with stage_progress(f"asking the {system}", dataset.eval_rows, f"{system}-predictions-progress") as progress:

        def listener(event: Event) -> None:
            nonlocal generated_now
            generated_now = True
            if event["event"] == "answer":
                progress(event["row"], "")

        log_path = home.logs / "generation.log"
        again = generation.places_asked_again(dataset, config.evaluation.asked_again, learned)
        predictions = generation.generate_predictions(servable, dataset, again, store, log_path, listener, server)
    how = f"in {predictions.seconds:.0f} s" if generated_now else "(stored answers reused)"
    log.info("The %s answered %d evaluation rows %s", system, predictions.rows, how)
    return predictions


@task(name="prepare general set", cache_policy=NO_CACHE)
def prepare_general(config: RetrainConfig, trained_on: tuple[DatasetRef, ...], store: Store) -> DatasetRef | None:
    """Read the general-ability set, if it is asked.

    Raises:
        ConfigError: its file cannot be read.
        EvaluationError: training rows ask what it asks.
    """
    return general_set.prepare_general(config.evaluation, trained_on, store)


@task(name="ask general set", cache_policy=NO_CACHE)
def ask_general(
    systems: dict[str, ServableModel], general: DatasetRef | None, home: Home, store: Store
) -> dict[str, Predictions]:
    """Ask systems what the general-ability set asks, if there is one; stored answers are not asked for again."""
    if general is None:
        return {}
    answers = {}
    for system, servable in systems.items():
        answers[system] = generation.generate_predictions(
            servable, general, (), store, home.logs / "generation.log", max_new_tokens=general_set.ANSWER_TOKENS
        )
        log.info("The %s has answered the %d rows of the general-ability set", system, general.eval_rows)
    return answers


@task(name="look for canaries", cache_policy=NO_CACHE)
def look_for_canaries(servable: ServableModel, config: RetrainConfig, home: Home, store: Store) -> Memorised | None:
    """Ask the candidate for what was planted in its training."""
    return memorisation.memorised_by(servable, config.training, store, home.logs / "generation.log")


@task(name="build report", cache_policy=NO_CACHE)
def build_report(
    predictions: dict[str, Predictions],
    config: RetrainConfig,
    store: Store,
    champion: RegisteredVersion | None,
    trained_on: tuple[DatasetRef, ...] = (),
    evidence: Evidence = Evidence(),  # noqa: B008
) -> EvalReport:
    """Score all systems on the same rows, none of which the champion was trained on, and keep the report.

    Args:
        predictions: system → its answers.
        config: how they are scored.
        store: where the report is kept.
        champion: the version in production.
        trained_on: what the candidate learned from; the gate refuses it if rows of it are evaluated.
        evidence: what else was found out; who was trained on what is added here.
    """
    evidence = replace(
        evidence,
        champion_learned=learned_files(champion),
        trained_on=tuple(dataset.path / "train.jsonl" for dataset in trained_on),
    )
    built = report.build_report(predictions, config.evaluation, store, evidence)
    left_out = predictions["candidate"].rows - built.examples
    if left_out:
        log.warning(
            "%d of %d evaluation rows are left out: the champion was trained on them; %d are compared",
            left_out,
            predictions["candidate"].rows,
            built.examples,
        )
    return built


@task(name="decide", cache_policy=NO_CACHE)
def decide(eval_report: EvalReport, config: RetrainConfig, has_champion: bool) -> GateDecision:
    """Apply the gate."""
    decision = gate.decide(eval_report, config.gate, has_champion)
    log.info("Gate: %s. %s", decision.verdict, " ".join(decision.reasons))
    for finding in decision.findings:
        if finding.rule in TOLD_RULES and finding.outcome != "passed":
            log.warning("%s: %s", finding.rule, finding.sentence)
    return decision


@task(name="write review", cache_policy=NO_CACHE)
def write_review(
    eval_report: EvalReport, decision: GateDecision, config: RetrainConfig, background: Background, store: Store
) -> Review:
    """Write the page on the decision, and show it in Prefect."""
    written = review.write_review(eval_report, decision, config.gate.primary_metric, background, store)
    create_markdown_artifact(
        key="gate-verdict",
        markdown=(written.path / "review.md").read_text(encoding="utf-8"),
        description=f"Candidate against {decision.baseline}: {decision.verdict}",
    )
    return written
