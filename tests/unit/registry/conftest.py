"""A database of MLflow to copy."""

import shutil

import pytest

from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.registry.connection import connect


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory):
    """Return a function that puts MLflow's tables, with nothing in them, into a home; to make them takes seconds."""
    made = Home(tmp_path_factory.mktemp("registry"))
    connect(RegistrySection(), made)

    def put_into(home):
        home.mlflow_database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.mlflow_database, home.mlflow_database)
        return home

    return put_into
