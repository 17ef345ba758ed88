"""The roll-out of one version as a transaction over Triton, the routing, the aliases and the ledger.

Nothing becomes champion before it serves; on any failure everything done so far is undone in reverse order, and the
version before has never stopped answering.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RolloutError
from tasks.contracts.home import Home
from tasks.registry.ledger import LedgerEvent, append_to_ledger, champions_in_order
from tasks.registry.versions import find_version_by_alias, move_aliases
from tasks.serving import rollout
from tasks.serving.triton_client import TritonAddress, repository_index
from tasks.serving.tritonserver import ensure_triton, why_triton_cannot_run

log = logging.getLogger("llm_retrain.rollout")


class Recorder(Protocol):
    """Writes a line of the ledger about the move under way."""

    def __call__(self, event: LedgerEvent, evidence: str = "") -> None: ...  # noqa: D102


@task(name="roll out", cache_policy=NO_CACHE)
def roll_out(target: RegisteredVersion, config: RetrainConfig, home: Home, why: str) -> ServedVersion:
    """Make `target` the champion, or change nothing.

    Raises:
        RolloutError: it does not load, answers differently than evaluated, or could not be switched to.
    """
    return switch_champion(target, config, home, why, "promoted")


def switch_champion(
    target: RegisteredVersion, config: RetrainConfig, home: Home, why: str, outcome: LedgerEvent
) -> ServedVersion:
    """Publish, load, verify, route and alias `target`; each move is a line in the ledger.

    Args:
        target: the version that shall answer.
        config: where it is served and registered.
        home: the state directory.
        why: for the ledger.
        outcome: "promoted" or "rolled back".

    Raises:
        RolloutError: it was undone; the champion before goes on serving.
    """
    with _promotion_lock(home):
        champion = find_version_by_alias(config.registry, "champion", home)
        before = champion.version if champion else None

        def record(event: LedgerEvent, evidence: str = "") -> None:
            append_to_ledger(home, event, config.registry.model_name, before, target.version, why, evidence)

        record("started")
        try:
            with ExitStack() as undo:
                served = _serve(target, before, config, home, record, undo)
                _move_aliases(target.version, before, config, home, outcome, undo)
                record(outcome, served.note)
                undo.pop_all()
        except BaseException as error:
            record("undone", f"{type(error).__name__}: {error}")
            raise
        _unload_retired(target.version, config, home)
        log.info("Version %d answers for %s. %s", target.version, config.serving.model_name, served.note)
        return served


def _serve(
    target: RegisteredVersion, before: int | None, config: RetrainConfig, home: Home, record: Recorder, undo: ExitStack
) -> ServedVersion:
    serving = config.serving
    prompts = rollout.golden_prompts(target.predictions_path, serving.golden_prompts)
    directory = rollout.publish_version(target, serving, home)
    name = directory.name
    if why_triton_cannot_run():
        rollout.check_golden_prompts(prompts, name, rollout.ask_in_process(directory))
        rollout.switch_routing(home, serving, target.version, undo)
        note = f"{len(prompts)} golden prompts answered as evaluated, in-process; not being served: no Triton here"
        return ServedVersion(target.version, name, served=False, note=note)
    address = ensure_triton(home, serving)
    if target.version != before:
        undo.callback(rollout.unload_version, address, name, serving)
    rollout.load_version(address, name, serving)
    record("loaded", f"{name} is ready at {address.http}")
    rollout.check_golden_prompts(prompts, name, rollout.ask_directly(address, name))
    record("verified", f"{len(prompts)} golden prompts answered as evaluated")
    rollout.switch_routing(home, serving, target.version, undo)
    through = rollout.ask_through(address, serving.model_name, name)
    rollout.check_golden_prompts(prompts, serving.model_name, through)
    record("routed", f"{serving.model_name} is answered by {name}")
    note = f"{len(prompts)} golden prompts answered as evaluated, directly and through {serving.model_name}"
    return ServedVersion(target.version, name, served=True, note=note)


def _move_aliases(
    target: int, before: int | None, config: RetrainConfig, home: Home, outcome: LedgerEvent, undo: ExitStack
) -> None:
    """Move `champion` and `previous`; after a rollback `previous` is the champion before the one returned to."""
    old = find_version_by_alias(config.registry, "previous", home)
    undo.callback(move_aliases, config.registry, home, before, old.version if old else None)
    history = champions_in_order(home, config.registry.model_name)
    if outcome == "rolled back":
        earlier = history[: history.index(target)] if target in history else []
        previous = earlier[-1] if earlier else None
    elif before == target:
        previous = old.version if old else None
    else:
        previous = before
    move_aliases(config.registry, home, target, previous)


def _unload_retired(champion: int, config: RetrainConfig, home: Home) -> None:
    """Unload versions that are neither champion nor previous; previous stays loaded, so that going back is quick."""
    address = None if why_triton_cannot_run() else ensure_triton(home, config.serving)
    if address is None:
        return
    previous = find_version_by_alias(config.registry, "previous", home)
    kept = {champion, previous.version if previous else champion}
    kept_names = {rollout.triton_model_name(config.serving, version) for version in kept}
    for name in _loaded_versions(address, config.serving.model_name):
        if name not in kept_names:
            rollout.unload_version(address, name, config.serving)
            log.info("%s was unloaded", name)


def _loaded_versions(address: TritonAddress, stable_name: str) -> list[str]:
    index = repository_index(address)
    return [name for name, line in index.items() if name.startswith(f"{stable_name}-v") and line["state"] == "READY"]


@contextmanager
def _promotion_lock(home: Home) -> Iterator[None]:
    """Let one promotion happen at a time.

    Raises:
        RolloutError: another one is under way.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "promotion.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RolloutError("another promotion or rollback is under way; try again when it has ended") from error
        yield
