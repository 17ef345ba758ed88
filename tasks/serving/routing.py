"""The routing table of a stable name: which Triton model answers. The router model reads it at each request."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.contracts.errors import ServingError
from tasks.contracts.jsonl import canonical_json


@dataclass(frozen=True)
class Routing:
    """Who answers.

    Attributes:
        champion: name of the Triton model that answers; None before the first promotion.
        version: its version in the registry.
        generation: counts the switches; grows by one with each.
        changed_at: when the last switch happened, ISO 8601 in UTC.
    """

    champion: str | None = None
    version: int | None = None
    generation: int = 0
    changed_at: str = ""


def read_routing(path: Path) -> Routing:
    """Return the routing table; one without a champion if it was never written.

    Raises:
        ServingError: the file is there and is not a routing table.
    """
    try:
        return Routing(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Routing()
    except (OSError, ValueError, TypeError) as error:
        raise ServingError(f"the routing table {path} cannot be read: {error}") from error


def write_routing(path: Path, routing: Routing) -> None:
    """Replace the routing table in one step: a reader, or a power cut, sees the old one or the new one.

    Raises:
        ServingError: it cannot be written; the old one stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(canonical_json(asdict(routing)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise ServingError(f"the routing table {path} cannot be written: {error}") from error


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
