"""Two registered versions side by side: verdicts, scores, the paired comparison, settings, rows and sizes."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import EvalReport, RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EvaluationError, RegistryError
from tasks.contracts.home import Home
from tasks.contracts.store import damage_of, entry_at, spelled_time
from tasks.data import versions as data_versions
from tasks.evaluation.pair import compare_answers
from tasks.evaluation.preference_sentence import sentence
from tasks.evaluation.report import load_report
from tasks.registry.aliases import read_aliases
from tasks.registry.ledger import read_ledger
from tasks.registry.people import preferences_by_people
from tasks.registry.versions import find_version, predictions_of, settings_of

log = logging.getLogger("llm_retrain.compare")


def compare_versions(first: int, second: int, config: RetrainConfig, home: Home) -> dict[str, Any]:
    """Return what is known of two versions and of what differs; what is lost is named and hides nothing else.

    Args:
        first: the version that the other is compared with.
        second: the other version.
        config: where they are registered, and the metrics of the paired comparison.
        home: the state directory.

    Raises:
        RegistryError: a version does not exist.
    """
    one, other = (find_version(config.registry, number, home) for number in (first, second))
    return {
        "versions": [_facts(version, config, home) for version in (one, other)],
        "rows": _rows(one, other),
        "paired": _paired(one, other, config),
        "settings": _settings(one, other, config, home),
        "data": _data(one, other),
    }


def _facts(version: RegisteredVersion, config: RetrainConfig, home: Home) -> dict[str, Any]:
    """Return what there is to say of a version alone."""
    report, dataset = _report(version.report_path), _dataset_facts(version.dataset_path)
    served = report.served.get("candidate") if report else None
    ledger = read_ledger(home, version.name)
    moves = (each for each in ledger if each["event"] in ("promoted", "rolled back"))
    return {
        "version": version.version,
        "aliases": [
            alias for alias, number in read_aliases(config.registry, home).items() if number == version.version
        ],
        "verdict": version.verdict,
        "baseline": version.tags["baseline"],
        "champion_before": version.tags["champion_before"],
        "registered_at": spelled_time(version.registered_at),
        "became_champion": [each["time"] for each in moves if each["to"] == version.version],
        "engine": version.tags["engine"],
        "base_source": version.tags.get("base_source"),
        "examples": report.examples if report else None,
        "scores": {name: asdict(each) for name, each in report.scores["candidate"].items()} if report else None,
        "servable_bytes": served.bytes if served else None,
        "median_seconds": served.median_seconds if served else None,
        "slow_seconds": served.slow_seconds if served else None,
        "preferred": [
            sentence(each) for each in (*(report.preferences if report else ()), *preferences_by_people(version))
        ],
        "train_rows": dataset.get("train_rows"),
        "eval_rows": dataset.get("eval_rows"),
        "eval_digest": version.tags["eval_digest"],
        "mlflow_run": version.run_id,
    }


def _rows(one: RegisteredVersion, other: RegisteredVersion) -> dict[str, Any]:
    """Say whether they were evaluated on the same rows."""
    if one.tags["eval_digest"] == other.tags["eval_digest"]:
        return {"same": True, "says": "both were evaluated on the same rows"}
    says = (
        f"version {one.version} and version {other.version} were evaluated on different rows: their scores cannot be "
        "compared row by row, and a difference between them may be one of the rows"
    )
    for judged, before in ((other, one), (one, other)):
        if judged.tags["champion_before"] == str(before.version):
            says += (
                f"; version {judged.version} was judged against version {before.version} on rows of its own: "
                f"{judged.report_path / 'report.md'}"
            )
    return {"same": False, "says": says}


def _paired(one: RegisteredVersion, other: RegisteredVersion, config: RetrainConfig) -> dict[str, Any]:
    """Compare the stored answers to the same rows; `missing` says why not."""
    if one.tags["eval_digest"] != other.tags["eval_digest"]:
        return {"missing": "they did not answer the same rows"}
    for version in (one, other):
        damage = damage_of(version.predictions_path)
        if damage:
            return {"missing": f"the answers of version {version.version} are lost or damaged ({damage})"}
    known, lost = _learned(one, other)
    try:
        pair = compare_answers(predictions_of(one), predictions_of(other), config.evaluation, known)
    except EvaluationError as error:
        return {"missing": str(error)}
    return {**asdict(pair), "confidence": config.evaluation.confidence, "rows_lost": lost}


def _learned(one: RegisteredVersion, other: RegisteredVersion) -> tuple[tuple[Path, ...], list[str]]:
    """Return the files of rows that the two were trained on, and those of them that are lost."""
    places = [path for version in (one, other) for path in (version.dataset_path, version.replay_path) if path]
    files = list(dict.fromkeys(place / "train.jsonl" for place in places))
    return tuple(path for path in files if path.is_file()), [str(path) for path in files if not path.is_file()]


def _settings(one: RegisteredVersion, other: RegisteredVersion, config: RetrainConfig, home: Home) -> dict[str, Any]:
    """Return the settings that differ, one a line; `missing` if those of a version are lost."""
    try:
        before, after = (_flat(settings_of(version, config.registry, home)) for version in (one, other))
    except RegistryError as error:
        return {"missing": str(error)}
    different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return {"different": [{"key": key, "first": before.get(key), "second": after.get(key)} for key in different]}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return section.key → value."""
    return {
        f"{section}.{key}": value
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, dict) else (("", values),))
    }


def _data(one: RegisteredVersion, other: RegisteredVersion) -> dict[str, Any]:
    """Count how their rows differ; `missing` if those of a version are lost."""
    digests = {"first": one.dataset_digest, "second": other.dataset_digest}
    if one.dataset_digest == other.dataset_digest:
        return {**digests, "same": True}
    for version in (one, other):
        damage = damage_of(version.dataset_path)
        if damage:
            return {**digests, "same": False, "missing": f"the rows of version {version.version} are lost ({damage})"}
    difference = data_versions.compare(entry_at(one.dataset_path), entry_at(other.dataset_path))
    counts = {name: len(getattr(difference, name)) for name in ("added", "removed", "changed", "moved")}
    kept = {"added_made": difference.added_made, "in_both": difference.same}
    return {**digests, "same": False, **counts, **kept}


def _report(path: Path) -> EvalReport | None:
    try:
        return load_report(path)
    except EvaluationError as error:
        log.warning("%s tells no scores: %s", path, error)
        return None


def _dataset_facts(path: Path) -> dict[str, Any]:
    try:
        return entry_at(path).facts
    except (OSError, ValueError, KeyError):
        return {}
