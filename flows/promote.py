"""Promotion of a version by hand, and the way back."""

import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.approval_form import say_decided
from flows.log_lines import record_log_lines
from flows.rollout import roll_out, settle, switch_champion
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.evaluation.preference_sentence import sentence
from tasks.registry.approvals import Waiting, pending
from tasks.registry.ledger import champions_ever
from tasks.registry.people import preferences_by_people
from tasks.registry.versions import find_version

log = logging.getLogger("llm_retrain.promote")


@flow(name="promote", validate_parameters=True)
def promote(version: int, reason: str, config: RetrainConfig = RetrainConfig()) -> ServedVersion:  # noqa: B008
    """Make a registered version the champion, through the same door as an automatic promotion.

    Raises:
        RegistryError: there is no such version, or the gate rejected it.
        RolloutError: it did not serve as evaluated, or another champion came in between; nothing has changed.
    """
    record_log_lines()
    home = Home.from_environment()
    target = find_version(config.registry, version, home)
    _refuse_rejected(target)
    for said in preferences_by_people(target):
        log.info("Version %d: %s", version, sentence(said))
    champion = settle(config, home).get("champion")
    waited = pending(home, config.registry.model_name)
    served = roll_out(target, config, home, reason, champion)
    _note_and_close(waited, f"version {version} was promoted by hand: {reason}", config, home)
    return served


@flow(name="rollback", validate_parameters=True)
def rollback(
    reason: str = "rolled back by hand",
    to: int | None = None,
    config: RetrainConfig = RetrainConfig(),  # noqa: B008
) -> ServedVersion:
    """Return to the champion before, or to any version that once was champion, through the same door.

    Args:
        reason: for the ledger.
        to: the version to return to; the champion before, which has the alias `previous`, if it is not given.
        config: where it is served and registered.

    Raises:
        RegistryError: there is no champion before, or `to` never was champion.
        RolloutError: it did not serve as evaluated, or another champion came in between; nothing has changed.
    """
    record_log_lines()
    home = Home.from_environment()
    aliases = settle(config, home)
    target = version_to_return_to(to, aliases, config.registry, home)
    waited = pending(home, config.registry.model_name)
    served = go_back(target, config, home, reason, aliases["champion"])
    said = f"version {aliases['champion']} was rolled back to version {target.version}"
    _note_and_close(waited, said, config, home)
    return served


def version_to_return_to(
    to: int | None, aliases: dict[str, int], registry: RegistrySection, home: Home
) -> RegisteredVersion:
    """Return the version that a rollback goes to.

    Args:
        to: the version that was asked for, if any.
        aliases: alias → version, as they are.
        registry: where it is registered.
        home: the state directory.

    Raises:
        RegistryError: there is no champion before, or `to` is not one that could be returned to.
    """
    if "champion" not in aliases or (to is None and "previous" not in aliases):
        raise RegistryError(f"{registry.model_name!r} has no champion before the present one; nothing to return to")
    target = find_version(registry, aliases["previous"] if to is None else to, home)
    _refuse_rejected(target)
    if target.version == aliases["champion"]:
        raise RegistryError(f"version {target.version} is champion already; there is nothing to return to")
    known = champions_ever(home, registry.model_name) | ({aliases["previous"]} if "previous" in aliases else set())
    if target.version not in known:
        once = ", ".join(map(str, sorted(known - {aliases["champion"]}))) or "none"
        raise RegistryError(
            f"version {target.version} never was champion, so there is no return to it; expected one of those that "
            f"were: {once}; what never was champion is promoted: llm-retrain promote {target.version}"
        )
    return target


@task(name="roll back", cache_policy=NO_CACHE)
def go_back(target: RegisteredVersion, config: RetrainConfig, home: Home, why: str, champion: int) -> ServedVersion:
    """Switch from `champion` to an earlier one."""
    return switch_champion(target, config, home, why, "rolled back", champion)


def _refuse_rejected(target: RegisteredVersion) -> None:
    if target.verdict == "reject":
        raise RegistryError(
            f"version {target.version} was rejected by the gate and cannot be promoted; see llm-retrain history"
        )


def _note_and_close(waited: Waiting | None, why: str, config: RetrainConfig, home: Home) -> None:
    """Say of what waited for a decision that it does no more."""
    if waited is not None:
        say_decided(waited.request, why, config.registry, home)
