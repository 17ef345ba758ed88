"""The roll-out of one version as a transaction over Triton, the routing, the aliases and the ledger.

Nothing becomes champion before it serves; on any failure everything done so far is undone in reverse order, and the
version before has never stopped answering.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.locks import waiting_lock
from flows.recovery import recover
from flows.rollout_steps import Move, move_aliases, serve
from flows.undo import UndoSteps
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import LlmRetrainError, RegistryError, RolloutError
from tasks.contracts.home import Home
from tasks.registry.aliases import read_aliases
from tasks.registry.approvals import Request, standing, too_late
from tasks.registry.ledger import overruled_versions
from tasks.registry.versions import find_overruled
from tasks.serving.rollout import retire_versions
from tasks.serving.triton_client import TritonAddress
from tasks.serving.tritonserver import ensure_triton, why_triton_cannot_run

log = logging.getLogger("llm_retrain.rollout")

LOCK_TIMEOUT_SECONDS = 120.0
"""A promotion takes seconds; a large model that loads and answers its golden prompts, a minute or two."""

Still = Callable[[int | None], None]
"""Given the champion of the moment, raises if what was decided does not hold any more; asked with the lock held."""


@task(name="roll out", cache_policy=NO_CACHE)
def roll_out(
    target: RegisteredVersion,
    config: RetrainConfig,
    home: Home,
    why: str,
    champion: int | None,
    still: Still | None = None,
) -> ServedVersion:
    """Make `target` the champion, or change nothing.

    Args:
        target: the version that shall answer.
        config: where it is served and registered.
        home: the state directory.
        why: for the ledger.
        champion: the one that the decision was made against, None if there was none.
        still: what else the decision hangs on; None for a person, who may also promote what was rolled back.

    Raises:
        RolloutError: it does not load, answers differently than evaluated, or could not be switched to; or the
            decision does not hold any more.
    """
    return switch_champion(target, config, home, why, "promoted", champion, still)


def switch_champion(
    target: RegisteredVersion,
    config: RetrainConfig,
    home: Home,
    why: str,
    outcome: Literal["promoted", "rolled back"],
    champion: int | None,
    still: Still | None = None,
) -> ServedVersion:
    """Publish, load, verify, route and alias `target`; each move is a line in the ledger.

    Args:
        target: the version that shall answer.
        config: where it is served and registered.
        home: the state directory.
        why: for the ledger.
        outcome: what it is if it succeeds.
        champion: the one that the decision was made against, None if there was none.
        still: what else the decision hangs on.

    Raises:
        RolloutError: nothing was changed, or all of it was undone: the champion before goes on serving.
        StoreError: the ledger cannot be written; nothing was changed.
    """
    with waiting_lock(home, "promotion", LOCK_TIMEOUT_SECONDS, busy()):
        address = _triton(config, home)
        recover(config, home, address)
        move = Move(target, config, home, why, outcome, read_aliases(config.registry, home))
        refuse_another_champion(target.version, move.before, champion)
        if still is not None:
            still(move.before)
        move.record("started")
        undo = UndoSteps()
        try:
            served = serve(move, address, undo)
            aliases = move_aliases(move, undo)
            move.record(outcome, served.note)
        except BaseException as error:
            refusal = _undone(move, error, undo)
            if isinstance(error, Exception):
                raise refusal from error
            raise
        left = retire_versions(address, config.serving, home, {target.version, aliases.get("previous", target.version)})
        log.info("Version %d is champion of %s. %s", target.version, config.serving.model_name, served.note)
        return replace(served, note=f"{served.note}; {left}") if left else served


def settle(config: RetrainConfig, home: Home) -> dict[str, int]:
    """Put in order what a crash left half way, and return alias → version, so that a decision can be made on them."""
    with waiting_lock(home, "promotion", LOCK_TIMEOUT_SECONDS, busy()):
        return settled(config, home)


def settled(config: RetrainConfig, home: Home) -> dict[str, int]:
    """Do the same for a caller that holds the promotion lock."""
    recover(config, home, _triton(config, home))
    return read_aliases(config.registry, home)


def _triton(config: RetrainConfig, home: Home) -> TritonAddress | None:
    return None if why_triton_cannot_run() else ensure_triton(home, config.serving)


def not_overruled(target: RegisteredVersion, config: RetrainConfig, home: Home) -> Still:
    """Return what refuses a version whose model a person has decided against."""

    def still(champion: int | None) -> None:
        overruled = find_overruled(config.registry, target.servable_digest, home)
        if overruled is not None and champion != target.version:
            how = overruled_versions(home, config.registry.model_name)[overruled.version]
            raise RolloutError(
                f"version {target.version} was not promoted: its model was {how} as version {overruled.version}; "
                f"if it shall answer, use llm-retrain promote {target.version}"
            )

    return still


def approved_still(asked: Request, target: RegisteredVersion, config: RetrainConfig, home: Home) -> Still:
    """Return what refuses a version whose approval was used up or taken back, or lapsed, since it was given."""
    others = not_overruled(target, config, home)

    def still(champion: int | None) -> None:
        now = standing(asked, config.registry.model_name, home)
        if now.status != "approved":
            raise RegistryError(too_late(now))
        others(champion)

    return still


def refuse_another_champion(version: int, champion: int | None, expected: int | None) -> None:
    """Refuse what was decided about a version on another champion than there is now; it may be champion itself.

    Raises:
        RolloutError: it was; nothing was changed.
    """
    if champion not in (expected, version):
        raise RolloutError(
            f"version {version} was to replace {_name_of(expected)}, and by now that is {_name_of(champion)}; "
            "nothing was changed, run the same command again"
        )


def _name_of(version: int | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _undone(move: Move, error: BaseException, undo: UndoSteps) -> RolloutError:
    """Undo everything, write that down, and return the error that says what happened and what could not be undone."""
    failures = undo.run()
    sentence = str(error) if isinstance(error, LlmRetrainError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, RolloutError):
        sentence = f"version {move.target.version} was not rolled out: {sentence}"
    evidence = sentence
    if failures:
        evidence = sentence = f"{sentence}; and undoing it failed: {'; '.join(failures)}"
    try:
        move.record("undo failed" if failures else "undone", evidence)
    except LlmRetrainError as unwritten:
        sentence = f"{sentence}; {unwritten}"
    return RolloutError(sentence)


def busy() -> RolloutError:
    """Return the error of who waited too long for the promotion lock."""
    return RolloutError(
        f"another promotion or rollback is under way for more than {LOCK_TIMEOUT_SECONDS:g} s; "
        "try again when it has ended"
    )
