"""Promotion of a version by hand, and the way back."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.rollout import roll_out, switch_champion
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.registry.ledger import champions_in_order
from tasks.registry.versions import find_version


@flow(name="promote", validate_parameters=True)
def promote(version: int, reason: str, config: RetrainConfig = RetrainConfig()) -> ServedVersion:  # noqa: B008
    """Make a registered version the champion, through the same door as an automatic promotion.

    Raises:
        RegistryError: there is no such version, or the gate rejected it.
        RolloutError: it did not serve as evaluated; nothing has changed.
    """
    home = Home.from_environment()
    target = find_version(config.registry, version, home)
    if target.verdict == "reject":
        raise RegistryError(
            f"version {version} was rejected by the gate and cannot be promoted; see llm-retrain history"
        )
    return roll_out(target, config, home, reason)


@flow(name="rollback", validate_parameters=True)
def rollback(reason: str = "rolled back by hand", config: RetrainConfig = RetrainConfig()) -> ServedVersion:  # noqa: B008
    """Return to the champion before, through the same door.

    Raises:
        RegistryError: there is no champion before.
        RolloutError: it did not serve as evaluated; nothing has changed.
    """
    home = Home.from_environment()
    history = champions_in_order(home, config.registry.model_name)
    if len(history) < 2:
        raise RegistryError(
            f"{config.registry.model_name!r} has no champion before the present one; nothing to return to"
        )
    return go_back(find_version(config.registry, history[-2], home), config, home, reason)


@task(name="roll back", cache_policy=NO_CACHE)
def go_back(target: RegisteredVersion, config: RetrainConfig, home: Home, why: str) -> ServedVersion:
    """Switch to an earlier champion."""
    return switch_champion(target, config, home, why, "rolled back")
