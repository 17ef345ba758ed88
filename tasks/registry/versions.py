"""Versions of the registered model: what each is made of, and which verdicts still stand."""

import json
import logging
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.artifacts import (
    AdapterRef,
    BaseModelRef,
    DatasetRef,
    EvalReport,
    GateDecision,
    Predictions,
    RegisteredVersion,
    Review,
    ServableModel,
)
from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.evaluation_sets import general_digest
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of
from tasks.contracts.locks import held_lock
from tasks.contracts.store import entry_at
from tasks.registry.approvals import open_request
from tasks.registry.connection import connect
from tasks.registry.ledger import overruled_versions
from tasks.registry.model_card import model_card
from tasks.registry.outage import patiently, reading
from tasks.registry.tracking import TrackedRun

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("llm_retrain.registry")

_DIRECTORY_TAGS = ("servable", "dataset", "predictions", "report")
_TAGS = (
    *_DIRECTORY_TAGS,
    *("verdict", "baseline", "engine", "champion_before"),
    *("servable_digest", "dataset_digest", "eval_digest", "gate_digest"),
)
_KEY = re.compile(r"[0-9a-f]{64}")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Candidate:
    """Everything a version is made of and judged by."""

    base: BaseModelRef
    dataset: DatasetRef
    adapter: AdapterRef
    servable: ServableModel
    predictions: Predictions
    report: EvalReport
    decision: GateDecision
    review: Review
    replay: DatasetRef | None = None


def gate_digest(config: RetrainConfig) -> str:
    """Return the digest of what can change a verdict on the same answers: settings, and the general-ability set.

    Raises:
        ConfigError: the file of that set cannot be read.
    """
    # How rows are asked changes no answer; who answers may, and a digest from before there was a choice still stands.
    silent = ("concurrency", "answer_timeout_seconds", "general", "general_path")
    unspoken: dict[str, Any] = dict.fromkeys(silent, True)
    if config.evaluation.through == "process":
        unspoken["through"] = True
    judge = config.evaluation.judge
    default = {"fixed_sampling"} if judge.fixed_sampling else set()
    unspoken["judge"] = {"parallel", "timeout_seconds", "retries", *default} if judge.url else True
    evaluation = config.evaluation.model_dump(mode="json", exclude=unspoken)
    general = general_digest(config.evaluation)
    off = ({"judge"} if config.gate.judge == "off" else set()) | (set() if general else {"general_margin"})
    gate = config.gate.model_dump(mode="json", exclude=off)
    return digest_of({"evaluation": evaluation, "gate": gate, **({"general": general} if general else {})})


def register_version(
    candidate: Candidate, config: RetrainConfig, run: TrackedRun, champion: RegisteredVersion | None, home: Home
) -> RegisteredVersion:
    """Register a candidate, whatever its verdict, as a LoggedModel with adapter, tokenizer, card, config and report.

    Rejected versions are registered too: they can be looked at, compared and found again, and only the verdict
    "promote" or "inconclusive" gets the alias `challenger`. A version with the same tags, judged before and not rolled
    out, for example because Triton was down, is returned as it is. It waits for an MLflow that does not answer.

    Raises:
        RegistryError: MLflow refused something that the run has logged, or did not answer in `registry.wait_seconds`.
    """
    run.flush_training()
    # One at a time in a home: aliases are no compare-and-set, and two first versions clash.
    with held_lock(home.root / "registration.lock"):
        return patiently(lambda: _register(candidate, config, run, champion, home), "registering", config.registry)


def _register(
    candidate: Candidate, config: RetrainConfig, run: TrackedRun, champion: RegisteredVersion | None, home: Home
) -> RegisteredVersion:
    """Register a candidate, or what is missing of it after an attempt that got half-way.

    MLflow may have made something and only the answer was lost: what makes anew is called where nothing is found.
    """
    import mlflow

    client, name = run.client, config.registry.model_name
    tags = _tags(candidate, config, champion)
    same = next((v for v in list_versions(config.registry, home) if v.tags.items() >= tags.items()), None)
    if same is None:
        # register_model also leaves the tag by which MLflow's pages lead from the logged model to its version.
        mlflow.register_model(f"models:/{_logged_model(candidate, config, run, tags)}", name, tags=tags)
        same = next(v for v in list_versions(config.registry, home) if v.tags.items() >= tags.items())
    run.set_tags({"llm_retrain.version": str(same.version)})
    if not client.get_model_version(name, str(same.version)).description:
        newest = client.get_registered_model(name).aliases.get("challenger", "0")
        # What is made up for after a crash does not take the alias from a challenger that was registered meanwhile.
        if candidate.decision.verdict != "reject" and same.version > int(newest):
            client.set_registered_model_alias(name, "challenger", str(same.version))
        verdict = f"{candidate.decision.verdict}: {' '.join(candidate.decision.reasons)}"
        client.update_model_version(
            name, str(same.version), description=verdict
        )  # last: it says that nothing is missing
    return same


def _logged_model(candidate: Candidate, config: RetrainConfig, run: TrackedRun, tags: dict[str, str]) -> str:
    """Return the id of the run's LoggedModel, complete."""
    from mlflow.entities import LoggedModelOutput

    client, name = run.client, config.registry.model_name
    found = client.search_logged_models([run.experiment], filter_string=f"source_run_id = '{run.run_id}'")
    logged = found[0] if found else None
    if logged is None:
        logged = client.create_logged_model(
            run.experiment, name=name, source_run_id=run.run_id, tags=tags, model_type="adapter"
        )
    with tempfile.TemporaryDirectory(prefix="llm-retrain-model-") as folder:
        _assemble(Path(folder), candidate, config)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    outputs = client.get_run(run.run_id).outputs
    if outputs is None or logged.model_id not in {output.model_id for output in outputs.model_outputs}:
        client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def find_version(registry: RegistrySection, number: int, home: Home) -> RegisteredVersion:
    """Return a version by its number.

    Raises:
        RegistryError: the registered model has no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _as_reference(connect(registry, home).get_model_version(registry.model_name, str(number)), home)
    except MlflowException as error:
        raise RegistryError(
            f"version {number} of {registry.model_name!r} is not in MLflow; see llm-retrain history"
        ) from error


def find_version_by_alias(registry: RegistrySection, alias: str, home: Home) -> RegisteredVersion | None:
    """Return the version that an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    client = connect(registry, home)
    try:
        return _as_reference(reading(lambda: client.get_model_version_by_alias(registry.model_name, alias)), home)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise RegistryError(f"alias {alias!r} of {registry.model_name!r} could not be read: {error.message}") from error


def settings_of(version: RegisteredVersion, registry: RegistrySection, home: Home) -> dict[str, Any]:
    """Return the whole configuration of the run that made a version: section → key → value.

    Raises:
        RegistryError: it is not in MLflow any more.
    """
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException

    connect(registry, home)  # `load_dict` asks the place that was set last
    try:
        return dict(load_dict(f"runs:/{version.run_id}/config.json"))
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"the configuration of version {version.version} of {version.name!r} is not in MLflow any more ({error})"
        ) from error


def note_approval(version: RegisteredVersion, note: str, registry: RegistrySection, home: Home) -> None:
    """Write on a version's page in MLflow what a person is asked, or has decided, about it."""
    connect(registry, home).set_model_version_tag(version.name, str(version.version), "approval", note[:5_000])


def predictions_of(version: RegisteredVersion) -> Predictions:
    """Return a version's answers to its evaluation rows, as the store has them."""
    entry = entry_at(version.predictions_path)
    size = entry.facts.get("servable_bytes", 0)
    return Predictions(entry.path, entry.digest, entry.facts["rows"], entry.facts["seconds"], size)


def list_versions(registry: RegistrySection, home: Home) -> list[RegisteredVersion]:
    """Return all versions that llm-retrain registered, newest first; others are named in the log and left out."""
    client = connect(registry, home)
    found = reading(lambda: client.search_model_versions(f"name = '{registry.model_name}'", max_results=10_000))
    versions = []
    for version in found:
        try:
            versions.append(_as_reference(version, home))
        except RegistryError as error:
            log.warning("Left out: %s", error)
    return sorted(versions, key=lambda version: -version.version)


def find_judged(
    registry: RegistrySection, servable_digest: str, eval_digest: str, gate: str, home: Home, waits: bool = False
) -> RegisteredVersion | None:
    """Return the newest version with these digests whose verdict still stands.

    It stands if the version is champion, if it was judged against today's champion, not promoted and registered to the
    end, or if a person decided against it: then it stands for its servable on any evaluation rows.

    Args:
        registry: the registered model.
        servable_digest: of the model.
        eval_digest: of the evaluation rows.
        gate: of the settings that can change a verdict.
        home: the state directory.
        waits: it also stands for a version that waits for a person's decision.
    """
    asked = open_request(home, registry.model_name) if waits else None
    champion = find_version_by_alias(registry, "champion", home)
    against = str(champion.version) if champion else "none"
    wanted = {"servable_digest": servable_digest, "eval_digest": eval_digest, "gate_digest": gate}
    for version in list_versions(registry, home):
        if version.tags.items() >= wanted.items():
            is_champion = champion is not None and champion.version == version.version
            is_waiting = asked is not None and asked.version == version.version
            is_open = is_waiting or (version.verdict != "promote" and version.is_complete)
            if is_champion or (is_open and version.tags["champion_before"] == against):
                return version
    if champion is not None and champion.servable_digest == servable_digest:
        return None
    return find_overruled(registry, servable_digest, home)


def find_overruled(registry: RegistrySection, servable_digest: str, home: Home) -> RegisteredVersion | None:
    """Return the newest version of this servable that a person decided against and nobody promoted since, or None."""
    overruled = overruled_versions(home, registry.model_name)
    if not overruled:
        return None
    twins = (version for version in list_versions(registry, home) if version.servable_digest == servable_digest)
    return next((version for version in twins if version.version in overruled), None)


def _tags(candidate: Candidate, config: RetrainConfig, champion: RegisteredVersion | None) -> dict[str, str]:
    replayed = {"replay": candidate.replay.path.name} if candidate.replay else {}
    return {
        **replayed,
        "verdict": candidate.decision.verdict,
        "baseline": candidate.decision.baseline,
        "champion_before": str(champion.version) if champion else "none",
        "gate_digest": gate_digest(config),
        "base_source": candidate.base.source,
        "base_digest": candidate.base.digest,
        "dataset": candidate.dataset.path.name,
        "dataset_digest": candidate.dataset.digest,
        "eval_digest": candidate.dataset.eval_digest,
        "adapter_digest": candidate.adapter.digest,
        "servable": candidate.servable.path.name,
        "servable_digest": candidate.servable.digest,
        "engine": candidate.servable.engine,
        "predictions": candidate.predictions.path.name,
        "report": candidate.report.path.name,
        "review": candidate.review.path.name,
    }


def _assemble(folder: Path, candidate: Candidate, config: RetrainConfig) -> None:
    """Lay out the files of the LoggedModel."""
    shutil.copytree(candidate.adapter.path / "adapter", folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    for name in _TOKENIZER_FILES:
        own = candidate.adapter.path / "adapter" / name  # with new tokens, training wrote a tokenizer
        source = own if own.is_file() else candidate.base.path / name
        if source.is_file():
            shutil.copyfile(source, tokenizer / name)
    shutil.copytree(candidate.report.path, folder / "report")
    shutil.copytree(candidate.review.path, folder / "review")
    files: dict[str, Any] = {
        "config.json": config.model_dump(mode="json"),
        "decision.json": asdict(candidate.decision),
        "dataset.json": {
            "digest": candidate.dataset.digest,
            "eval_digest": candidate.dataset.eval_digest,
            "train_rows": candidate.dataset.train_rows,
            "eval_rows": candidate.dataset.eval_rows,
            "rejected": candidate.dataset.rejected,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    card = model_card(
        candidate.base, candidate.dataset, candidate.adapter, candidate.report, candidate.decision, config
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _as_reference(version: "ModelVersion", home: Home) -> RegisteredVersion:
    tags = dict(version.tags)
    missing = [key for key in _TAGS if key not in tags]
    if missing:
        raise RegistryError(
            f"version {version.version} of {version.name!r} was not registered by llm-retrain (no tag {missing[0]!r})"
        )
    for key in (*_DIRECTORY_TAGS, *(key for key in ("replay", "review") if key in tags)):  # they become part of paths
        if not _KEY.fullmatch(tags[key]):
            raise RegistryError(
                f"version {version.version} of {version.name!r} has the tag {key}={tags[key]!r}; expected 64 hex digits"
            )
    return RegisteredVersion(
        name=version.name,
        version=int(version.version),
        run_id=version.run_id or "",
        verdict=tags["verdict"],
        servable_digest=tags["servable_digest"],
        servable_path=home.store / "servable" / tags["servable"],
        dataset_digest=tags["dataset_digest"],
        dataset_path=home.store / "dataset" / tags["dataset"],
        predictions_path=home.store / "predictions" / tags["predictions"],
        report_path=home.store / "report" / tags["report"],
        replay_path=home.store / "replay" / tags["replay"] if "replay" in tags else None,
        review_path=home.store / "review" / tags["review"] if "review" in tags else None,
        tags=tags,
        registered_at=version.creation_timestamp / 1_000,
        is_complete=bool(version.description),
    )
