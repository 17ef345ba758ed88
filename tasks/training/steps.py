"""The Prefect tasks of the training stage."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.contracts.artifacts import AdapterRef, BaseModelRef
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import TrainingError
from tasks.contracts.home import Home
from tasks.contracts.progress import Report, stage_progress
from tasks.contracts.store import Store
from tasks.training import adapter as adapters
from tasks.training import base_model as base_models
from tasks.training.announcements import announce_plan
from tasks.training.plan.request import request_plan
from tasks.training.plan.verdict import refuse_what_cannot_fit
from tasks.training.sweep.space import decides_memory


@task(name="prepare base model", cache_policy=NO_CACHE)
def prepare_base_model(config: RetrainConfig, home: Home, store: Store) -> BaseModelRef:
    """Keep the base model as safetensors, by digest."""
    base = base_models.prepare_base_model(config.base_model, home, store, config.serving.system_prompt)
    adapters.log.info("Base model %s (%s)", base.source, base.digest[:12])
    return base


@task(name="prepare teacher", cache_policy=NO_CACHE)
def prepare_teacher(config: RetrainConfig, home: Home, store: Store) -> BaseModelRef | None:
    """Keep the model that a distillation learns from as safetensors, by digest; None if there is none."""
    return base_models.prepare_teacher(config.training, config.base_model, home, store)


@task(name="plan training", cache_policy=NO_CACHE)
def plan_training(job: adapters.TrainingJob, home: Home, store: Store, searched: Collection[str] = ()) -> None:
    """Say what a training will need, and refuse one that cannot be, before anything is made for it.

    What the store has already is not planned.

    Args:
        job: what would be trained.
        home: where the planning process writes its log.
        store: keeps adapters.
        searched: the settings that other trials of a sweep have otherwise; what is refused for them is a warning.

    Raises:
        TrainingError: no row fits, the model's shape rules out what is configured, or the memory does not suffice.
    """
    if adapters.is_trained(job, store):
        return
    try:
        facts = request_plan(job, store, home.logs / "plan.log")
    except TrainingError as error:
        if not any(f"training.{key} " in str(error) for key in searched):
            raise
        _warn_of_trials(error)
        return
    try:
        refuse_what_cannot_fit(facts, job.training.method)
    except TrainingError as error:
        if not decides_memory(searched):
            raise
        _warn_of_trials(error)
    else:
        announce_plan(facts)


def _warn_of_trials(error: TrainingError) -> None:
    adapters.log.warning("Trials with the configured settings will fail: %s", error)


@task(name="train adapter", cache_policy=NO_CACHE)
def train_adapter(
    job: adapters.TrainingJob, home: Home, store: Store, on_event: Callable[[dict[str, Any]], None]
) -> AdapterRef:
    """Train in a process of its own; `on_event` gets what happens on the way, also of an adapter that is reused."""
    trained_now = False
    with ExitStack() as shown:
        report: Report

        def listener(event: dict[str, Any]) -> None:
            nonlocal trained_now, report
            trained_now = True
            if event["event"] == "start":  # only the process knows the total: it leaves out rows that are too long
                report = shown.enter_context(stage_progress("training", event["total_steps"], "training-progress"))
            elif event["event"] == "step":
                report(event["step"], f"loss {event['loss']:.3f}, {event['tokens_per_second']:.0f} tokens/s")
            on_event(event)

        adapter = adapters.train_adapter(job, store, home.logs / "training.log", listener)
    if not trained_now:
        for event in adapters.training_events(adapter):
            on_event(event)
    adapters.log.info(
        "Adapter %s: %d rows, %d tokens, last loss %.3f%s",
        adapter.digest[:12],
        adapter.train_rows,
        adapter.tokens,
        adapter.final_loss,
        f", {adapter.seconds:.0f} s" if trained_now else " (unchanged, reused)",
    )
    return adapter
