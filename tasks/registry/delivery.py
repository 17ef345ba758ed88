"""Entries of a journal as calls of MLflow, each of which may be made twice: what came before is found and left out."""

import base64
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import RegistryError
from tasks.contracts.jsonl import read_jsonl
from tasks.registry.journal import Entry, Journal
from tasks.registry.outage import is_outage

if TYPE_CHECKING:
    from mlflow import MlflowClient

_POINTS_A_BATCH = 1_000
"""MLflow's own limit."""


class Delivery:
    """Sends a journal's entries in order.

    Points of curves that were tried before, and nobody knows with what success, are looked up first: a point is what
    it is by key, step and time, and a store of MLflow may keep it twice. All other calls say a state, and to say it
    twice changes nothing.

    Attributes:
        refused: what MLflow refused for good, with its words.
    """

    def __init__(self, client: "MlflowClient", journal: Journal) -> None:
        self._client, self._journal = client, journal
        self._held: dict[str, set[tuple[int, int]]] = {}
        self.refused: list[str] = []

    def send_next(self) -> None:
        """Send the first entries: as many points of curves as a batch takes, or one entry of another kind.

        Raises:
            Exception: an outage, as `is_outage` knows it; the entries stay.
        """
        entries = _next_batch(self._journal)
        try:
            self._send(entries)
        except Exception as error:
            if is_outage(error) or len(entries) == 1:
                self._settle(entries, error)
                return
            for entry in entries:  # one of them is refused, and the others are not to go with it
                self._send_alone(entry)

    def _send_alone(self, numbered: tuple[int, Entry]) -> None:
        try:
            self._send([numbered])
        except Exception as error:
            self._settle([numbered], error)

    def _settle(self, entries: list[tuple[int, Entry]], error: Exception) -> None:
        """Keep entries that MLflow may take later, and let go what it refused."""
        number, entry = entries[-1]
        if is_outage(error):
            self._journal.tried = max(self._journal.tried, number)
            self._held.clear()
            raise error
        self.refused.append(f"{_name_of(entry)} ({error})")
        self._journal.done(number)

    def _send(self, entries: list[tuple[int, Entry]]) -> None:
        number, entry = entries[0]
        if entry["kind"] == "points":
            points = [point for _, each in entries for point in each["metrics"]]
            if number <= self._journal.tried:
                points = [point for point in points if (point[3], point[2]) not in self._history(point[0])]
            self._log_points(points)
        else:
            _CALLS[entry["kind"]](self._client, self._journal.run_id, entry)
        self._journal.done(entries[-1][0])

    def _history(self, key: str) -> set[tuple[int, int]]:
        """Return (step, time) of the points of a curve that MLflow has."""
        if key not in self._held:
            history = self._client.get_metric_history(self._journal.run_id, key)
            self._held[key] = {(point.step, point.timestamp) for point in history}
        return self._held[key]

    def _log_points(self, points: list[list[Any]]) -> None:
        """Log points: key, value, milliseconds since 1970, step."""
        from mlflow.entities import Metric

        if points:
            self._client.log_batch(self._journal.run_id, metrics=[Metric(*point) for point in points])


def _next_batch(journal: Journal) -> list[tuple[int, Entry]]:
    """Return the entries that go in one request."""
    waiting = journal.waiting(_POINTS_A_BATCH)
    batch, points = [], 0
    for number, entry in waiting:
        points += len(entry["metrics"]) if entry["kind"] == "points" else _POINTS_A_BATCH + 1
        if points > _POINTS_A_BATCH:
            break
        batch.append((number, entry))
    return batch or waiting[:1]


def _name_of(entry: Entry) -> str:
    keys = [point[0] for point in entry.get("metrics", ())] or [*entry.get("params", {}), *entry.get("tags", {})]
    named = ", ".join(keys[:3]) or str(entry.get("name") or entry.get("to") or "")
    return f"{entry['kind']} {named}".strip()


def _log_facts(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    from mlflow.entities import Param, RunTag

    params = [Param(key, value) for key, value in entry["params"].items()]
    tags = [RunTag(key, value) for key, value in entry["tags"].items()]
    client.log_batch(run_id, params=params, tags=tags)


def _log_dict(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    client.log_dict(run_id, entry["content"], entry["name"])


def _log_directory(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    _refuse_what_is_gone(Path(entry["path"]))
    client.log_artifacts(run_id, entry["path"], entry["to"])


def _log_file(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    with tempfile.TemporaryDirectory(prefix="llm-retrain-file-") as folder:
        path = Path(folder) / entry["name"]
        path.write_bytes(base64.b64decode(entry["base64"]))
        client.log_artifact(run_id, str(path))


def _log_table(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    """Write the whole table; `log_table` appends to the one that is there, and would double it."""
    from mlflow.entities import RunTag

    path, name, columns = Path(entry["path"]), entry["name"], entry["columns"]
    _refuse_what_is_gone(path)
    rows = [[row[key] for key in columns] for row in read_jsonl(path)]
    client.log_dict(run_id, {"columns": columns, "data": rows}, name)
    listed = json.dumps([{"path": name, "type": "table"}])
    client.log_batch(run_id, tags=[RunTag("mlflow.loggedArtifacts", listed)])


def _log_inputs(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(Dataset(**each["dataset"]), [InputTag("mlflow.data.context", each["context"])])
        for each in entry["inputs"]
    ]
    client.log_inputs(run_id, inputs)


def _end(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    client.set_terminated(run_id, status=entry["status"], end_time=entry["time"])


def _refuse_what_is_gone(path: Path) -> None:
    if not path.exists():
        raise RegistryError(f"{path} is gone")


_CALLS = {
    "facts": _log_facts,
    "dict": _log_dict,
    "directory": _log_directory,
    "file": _log_file,
    "table": _log_table,
    "inputs": _log_inputs,
    "end": _end,
}
