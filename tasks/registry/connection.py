"""The connection to MLflow: a tracking server if one is configured, otherwise sqlite in the state directory."""

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from tasks.contracts.config import RegistrySection
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.contracts.locks import held_lock
from tasks.registry.outage import reading

if TYPE_CHECKING:
    from mlflow import MlflowClient


_KIND = "mlflow.experimentKind"
"""The tag by which MLflow opens an experiment on training runs and their curves rather than on chat traces."""

_CLIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where `--json` prints
}
"""What MLflow's client reads at each request; by its defaults a call to a server that hangs takes a quarter of an hour.

It repeats any request, also one that makes something anew and whose answer alone was lost; so repeating is ours, where
it is known to be safe (`reading`, `patiently`, the journal). What the user has set stays.
"""


def tracking_uri(registry: RegistrySection, home: Home) -> str:
    """Return where runs and versions are kept."""
    return registry.tracking_uri or f"sqlite:///{home.mlflow_database}"


def connect(registry: RegistrySection, home: Home) -> "MlflowClient":
    """Return a client whose requests end soon; makes the sqlite database on first use.

    Raises:
        RegistryError: registry.tracking_uri does not answer or the database cannot be opened.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    for name, value in _CLIENT.items():
        os.environ.setdefault(name, value)
    uri = tracking_uri(registry, home)
    mlflow.set_tracking_uri(uri)
    try:
        # MLflow's tracking store (3.17) takes no lock when it makes its tables, and whoever comes meanwhile fails.
        own = home.mlflow_database.with_suffix(".lock")
        with nullcontext() if registry.tracking_uri else held_lock(own):
            client = mlflow.MlflowClient(tracking_uri=uri)
            reading(lambda: client.search_experiments(max_results=1))
    except MlflowException as error:
        raise RegistryError(f"registry.tracking_uri is {uri!r}, which does not answer: {error.message}") from error
    return client


def experiment_id(client: "MlflowClient", registry: RegistrySection, home: Home) -> str:
    """Return the id of the configured experiment, creating it on first use."""
    from mlflow.exceptions import MlflowException

    found = reading(lambda: client.get_experiment_by_name(registry.experiment))
    if found is None:
        location = None if registry.tracking_uri else home.mlflow_artifacts.as_uri()
        try:
            return str(client.create_experiment(registry.experiment, location, {_KIND: "custom_model_development"}))
        except MlflowException:  # another run created it in the meantime
            found = client.get_experiment_by_name(registry.experiment)
    if found is None or found.lifecycle_stage != "active":
        raise RegistryError(
            f"registry.experiment is {registry.experiment!r}, which is deleted in MLflow; restore it or name another"
        )
    return str(found.experiment_id)
