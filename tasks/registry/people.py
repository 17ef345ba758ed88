"""What people prefer, kept with a version: figures and a file of its run, and a tag of the version that lists read."""

import json
import logging
import time
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.contracts.artifacts import Preference, RegisteredVersion
from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import canonical_json
from tasks.registry.connection import connect
from tasks.registry.outage import patiently
from tasks.registry.preference_figures import preference_figures

log = logging.getLogger("llm_retrain.registry")

_TAG = "preferred_by_people."
_PREFERENCE = TypeAdapter(Preference)


def record_people(
    version: RegisteredVersion, preference: Preference, details: dict[str, Any], registry: RegistrySection, home: Home
) -> None:
    """Record a preference with the version that it is about; one that was recorded before against the same is replaced.

    Args:
        version: whose answers are the candidate's.
        preference: of people.
        details: what each of them said.
        registry: where the version is registered.
        home: the state directory.

    Raises:
        RegistryError: MLflow does not answer in `registry.wait_seconds`.
    """
    from mlflow.entities import Metric

    baseline, now = preference.baseline.replace(" ", "-"), int(time.time() * 1_000)
    points = [Metric(key, value, now, 0) for key, value in preference_figures((preference,)).items()]

    def write() -> None:
        client = connect(registry, home)
        client.log_batch(version.run_id, metrics=points)
        client.log_dict(version.run_id, {**asdict(preference), **details}, f"people/against-{baseline}.json")
        said = canonical_json(asdict(preference))
        client.set_model_version_tag(version.name, str(version.version), f"{_TAG}{baseline}", said)

    patiently(write, "recording the ratings", registry)


def preferences_by_people(version: RegisteredVersion) -> tuple[Preference, ...]:
    """Return what people prefer, one a baseline; a tag that is not one of ours is named in the log and left out."""
    found = []
    for key, text in sorted(version.tags.items()):
        if key.startswith(_TAG):
            try:
                found.append(_PREFERENCE.validate_python(json.loads(text)))
            except (ValueError, ValidationError) as error:
                log.warning("Version %d has a tag %s that is no preference: %s", version.version, key, error)
    return tuple(found)
