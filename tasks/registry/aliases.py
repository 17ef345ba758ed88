"""The aliases champion, previous and challenger: read and written together, so that they can be put back together."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.contracts.config import RegistrySection
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.registry.connection import connect
from tasks.registry.outage import reading

_IN_WRITING_ORDER = ("previous", "champion", "challenger")


def read_aliases(registry: RegistrySection, home: Home) -> dict[str, int]:
    """Return alias → version; what is not set is not in it.

    Raises:
        RegistryError: MLflow does not say.
    """
    from mlflow.exceptions import MlflowException

    client = connect(registry, home)
    try:
        found = reading(lambda: client.get_registered_model(registry.model_name)).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise RegistryError(f"the aliases of {registry.model_name!r} could not be read: {error.message}") from error
    return {alias: int(version) for alias, version in found.items() if alias in _IN_WRITING_ORDER}


def write_aliases(registry: RegistrySection, home: Home, wanted: dict[str, int]) -> None:
    """Make the three aliases what `wanted` says; one that is not in it is removed.

    `previous` comes first: a crash in between leaves the champion where it was.

    Raises:
        RegistryError: MLflow refused; some may have moved.
    """
    client, name, present = connect(registry, home), registry.model_name, read_aliases(registry, home)
    for alias in _IN_WRITING_ORDER:
        version = wanted.get(alias)
        if version == present.get(alias):
            continue
        with _refusals(name, alias):
            if version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(version))


def aliases_after(before: dict[str, int], champion: int, previous: int | None) -> dict[str, int]:
    """Return the aliases once `champion` is champion; it is no challenger any more."""
    after = {"champion": champion}
    if previous is not None:
        after["previous"] = previous
    if before.get("challenger") not in (None, champion):
        after["challenger"] = before["challenger"]
    return after


def aliases_back(before: dict[str, int], present: dict[str, int]) -> dict[str, int]:
    """Return the aliases as they were `before` a move, but for a challenger that was registered meanwhile."""
    return {**before, **({"challenger": present["challenger"]} if "challenger" in present else {})}


@contextmanager
def _refusals(name: str, alias: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"alias {alias!r} of {name!r} could not be moved: {error.message}") from error
