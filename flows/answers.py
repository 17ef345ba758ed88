"""Asks a system for its answers, in a process or through the server that will serve it, as the configuration says."""

from tasks.contracts.artifacts import DatasetRef, Predictions, RegisteredVersion, ServableModel
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.evaluation import steps
from tasks.evaluation.side_by_side import learned_files
from tasks.serving.evaluated_model import evaluation_server


def generate_predictions(
    system: str,
    servable: ServableModel,
    dataset: DatasetRef,
    config: RetrainConfig,
    home: Home,
    store: Store,
    champion: RegisteredVersion | None = None,
) -> Predictions:
    """Return the answers of one system (base, champion or candidate) to every evaluation row.

    What the champion was trained on is asked, but not asked again.
    """
    through = config.evaluation.through
    server = evaluation_server(home, config.serving, config.evaluation) if through == "server" else None
    return steps.generate_predictions(system, servable, dataset, config, home, store, server, *learned_files(champion))
