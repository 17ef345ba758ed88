"""What earlier processes could not send to MLflow, because it did not answer or because they were killed."""

import logging
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.registry.delivery import Delivery
from tasks.registry.journal import Journal, left_journals

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("llm_retrain.registry")

_KEPT_SECONDS = 30 * 24 * 3600.0


def send_leftovers(client: "MlflowClient", registry: RegistrySection, home: Home) -> int:
    """Send the journals whose process has ended, and end the runs of those that were killed.

    What MLflow still does not take after 30 days goes, with a warning.

    Returns:
        The number of runs that something is left to send of.
    """
    from mlflow.exceptions import MlflowException

    waiting = 0
    for journal in left_journals(home):
        with closing(journal):
            try:
                if journal.tracking_uri == registry.tracking_uri:
                    _send(client, journal)
                else:
                    where = journal.tracking_uri or "the state directory's own database"
                    log.info(
                        "Run %s waits to be sent to %s: registry.tracking_uri names another", journal.run_id, where
                    )
            except (MlflowException, OSError) as error:  # it keeps no other run from its beginning
                log.warning("MLflow still does not take what run %s has to say: %s", journal.run_id, error)
            if len(journal) and time.time() - journal.path.stat().st_mtime > _KEPT_SECONDS:
                log.warning("%d entries of run %s are given up after 30 days", len(journal), journal.run_id)
                journal.give_up()
            waiting += bool(len(journal))
    return waiting


def _send(client: "MlflowClient", journal: Journal) -> None:
    if not _is_there(client, journal.run_id):
        log.warning("Run %s is not in MLflow any more, nor is what it had to say", journal.run_id)
        journal.give_up()
        return
    count, stopped = len(journal), int(journal.path.stat().st_mtime * 1_000)
    delivery = Delivery(client, journal)
    if not journal.has_end:  # its process was killed, and nobody else will say that the run is over
        journal.add({"kind": "end", "status": "KILLED", "time": stopped})
    while len(journal):
        delivery.send_next()
    for refusal in delivery.refused:
        log.error("MLflow refused for run %s: %s", journal.run_id, refusal)
    log.info("Sent %d entries of run %s, which had not reached MLflow", count, journal.run_id)


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
