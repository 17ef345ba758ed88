"""Recognises a run whose result is there already, from digests alone: no server, no training, no Prefect."""

from dataclasses import replace

from flows.outcome import Outcome, outcome_of
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.store import LookupOnlyStore, NotInStore


def find_finished(config: RetrainConfig, home: Home) -> Outcome | None:
    """Return the outcome of an earlier run that this configuration and these inputs would only repeat, or None.

    It walks the line with a store that makes nothing: the first missing entry means there is work to do. A verdict
    stands as long as the version is champion, or was not promoted against the champion of today.
    """
    if not (home.store / "report").is_dir():
        return None
    from tasks.data.ingest import ingest
    from tasks.data.split import build_dataset
    from tasks.registry.versions import find_judged, gate_digest
    from tasks.serving.build import build_servable
    from tasks.training.adapter import train_adapter
    from tasks.training.base_model import prepare_base_model

    store = LookupOnlyStore(home.store)
    log_path = home.logs / "unused.log"
    try:
        base = prepare_base_model(config.base_model, home, store)
        rows = ingest(config.data, store, config.data.sources)
        held_out = config.data.evaluation_sources
        evaluation_rows = ingest(config.data, store, held_out) if held_out else None
        dataset = build_dataset(rows, evaluation_rows, config.data, store)
        adapter = train_adapter(base, dataset, config.training, config.serving.system_prompt, store, log_path)
        servable = build_servable(base, adapter, config.serving, store, log_path)
    except NotInStore:
        return None
    version = find_judged(config.registry, servable.digest, dataset.eval_digest, gate_digest(config), home)
    return None if version is None else _recall(version, config, home)


def _recall(version: RegisteredVersion, config: RetrainConfig, home: Home) -> Outcome:
    """Read the outcome back: the report is stored, and the gate is a pure function of it."""
    from tasks.evaluation.gate import decide
    from tasks.evaluation.report import load_report
    from tasks.registry.versions import find_version_by_alias
    from tasks.serving.rollout import triton_model_name
    from tasks.serving.tritonserver import running_triton

    report = load_report(version.report_path)
    decision = decide(report, config.gate, has_champion=version.tags["champion_before"] != "none")
    champion = find_version_by_alias(config.registry, "champion", home)
    served = None
    if champion is not None and champion.version == version.version:
        name = triton_model_name(config.serving, version.version)
        served = ServedVersion(version.version, name, served=running_triton(home) is not None, note="served before")
    places = {"mlflow_run": version.run_id, "report": str(version.report_path / "report.md")}
    return replace(outcome_of(report, decision, version, served, config, places), status="unchanged")
