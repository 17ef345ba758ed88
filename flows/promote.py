"""Promotion of a version by hand, and the way back."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.log_lines import record_log_lines
from flows.rollout import roll_out, settle, switch_champion
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.registry.versions import find_version


@flow(name="promote", validate_parameters=True)
def promote(version: int, reason: str, config: RetrainConfig = RetrainConfig()) -> ServedVersion:  # noqa: B008
    """Make a registered version the champion, through the same door as an automatic promotion.

    Raises:
        RegistryError: there is no such version, or the gate rejected it.
        RolloutError: it did not serve as evaluated; nothing has changed.
    """
    record_log_lines()
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

    The alias `previous` says which one that is.

    Raises:
        RegistryError: there is no champion before.
        RolloutError: it did not serve as evaluated, or another champion came in between; nothing has changed.
    """
    record_log_lines()
    home = Home.from_environment()
    aliases = settle(config, home)
    if "champion" not in aliases or "previous" not in aliases:
        raise RegistryError(
            f"{config.registry.model_name!r} has no champion before the present one; nothing to return to"
        )
    target = find_version(config.registry, aliases["previous"], home)
    return go_back(target, config, home, reason, aliases["champion"])


@task(name="roll back", cache_policy=NO_CACHE)
def go_back(target: RegisteredVersion, config: RetrainConfig, home: Home, why: str, champion: int) -> ServedVersion:
    """Switch from `champion` to the one before."""
    return switch_champion(target, config, home, why, "rolled back", champion)
