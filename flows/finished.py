"""Recognises a run whose result is there already, from digests alone: no training, no Prefect.

What it finds is champion, or was judged against today's champion, or a person decided against it, or is to decide. A
champion that does not answer any more is served again.
"""

import logging
from dataclasses import replace

from flows.outcome import Outcome, outcome_of
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import LlmRetrainError
from tasks.contracts.home import Home
from tasks.contracts.store import LookupOnlyStore, NotInStore

log = logging.getLogger("llm_retrain.retrain")


def find_finished(config: RetrainConfig, home: Home) -> Outcome | None:
    """Return the outcome of an earlier run that this configuration and these inputs would only repeat, or None.

    It walks the line with a store that makes nothing: the first missing entry means there is work to do. When a verdict
    stands is said by `find_judged`; what a person decided against is never promoted by itself.

    Raises:
        ConfigError: the file of the general-ability set cannot be used.
    """
    from tasks.evaluation.general_set import check_general

    check_general(config.evaluation)
    if not (home.store / "report").is_dir():
        return None
    from tasks.data.build import build_dataset
    from tasks.data.ingest import Place, ingest
    from tasks.data.replay import prepare_replay
    from tasks.registry.versions import find_judged, gate_digest
    from tasks.serving.build import build_servable
    from tasks.training.adapter import TrainingJob, train_adapter
    from tasks.training.base_model import prepare_base_model, prepare_teacher

    store = LookupOnlyStore(home.store)
    log_path = home.logs / "unused.log"
    try:
        base = prepare_base_model(config.base_model, home, store)
        teacher = prepare_teacher(config.training, config.base_model, home, store)
        place = Place(home, store, config.serving)
        rows = ingest(config.data, place, config.data.sources)
        held_out = config.data.evaluation_sources
        evaluation_rows = ingest(config.data, place, held_out) if held_out else None
        dataset = build_dataset(rows, evaluation_rows, config.data, place, base)
        replay = prepare_replay(config.training.replay, dataset, place)
        job = TrainingJob(base, dataset, config.training, config.serving.system_prompt, replay, teacher)
        adapter = train_adapter(job, store, log_path)
        servable = build_servable(base, adapter, config.serving, store, log_path)
    except NotInStore:
        return None
    waits = config.promotion.approval == "person"
    version = find_judged(config.registry, servable.digest, dataset.eval_digest, gate_digest(config), home, waits)
    outcome = None if version is None else _recall(version, config, home)
    return None if outcome is None else replace(outcome, long_rows=adapter.long_rows)


def _recall(version: RegisteredVersion, config: RetrainConfig, home: Home) -> Outcome | None:
    """Read the outcome back: the report is stored, and the gate is a pure function of it.

    Returns:
        None if what was stored about the version is lost or damaged: then the work is done again.
    """
    from tasks.contracts.store import damage_of
    from tasks.evaluation.gate import decide
    from tasks.evaluation.report import load_report
    from tasks.registry.approvals import open_request
    from tasks.registry.ledger import overruled_versions
    from tasks.registry.versions import find_version_by_alias

    for path in (version.report_path, version.predictions_path):
        damage = damage_of(path)
        if damage:
            log.warning("Version %d holds the result, but %s is lost (%s)", version.version, path, damage)
            return None
    report = load_report(version.report_path)
    decision = decide(report, config.gate, has_champion=version.tags["champion_before"] != "none")
    if decision.verdict == "inconclusive" and any(preference.problem for preference in report.preferences):
        log.info("Version %d has no verdict because the judge failed: it is asked again", version.version)
        return None
    champion = find_version_by_alias(config.registry, "champion", home)
    is_champion = champion is not None and champion.version == version.version
    served = serve_again(version, config, home) if is_champion else None
    overruled = overruled_versions(home, version.name).get(version.version, "")
    asked = open_request(home, version.name)
    page = version.review_path / "review.html" if version.review_path else None
    shown = page if page is not None and page.is_file() else version.report_path / "report.md"
    places = {"mlflow_run": version.run_id, "report": str(shown)}
    outcome = outcome_of(report, decision, version, served, config, places)
    outcome = replace(outcome, verdict=version.verdict)
    if decision.verdict != version.verdict:
        today = f"By the rules of today it would be: {decision.verdict}."
        outcome = replace(outcome, reasons=(today, *outcome.reasons))
    if overruled and not is_champion:
        nothing = f"Nothing was judged anew: what counts is that a person decided against version {version.version}."
        return replace(outcome, status="unchanged", reasons=(nothing,), overruled=overruled)
    if asked is not None and asked.version == version.version and not is_champion:
        return replace(outcome, status="waiting", waits_until=asked.expires)
    return replace(outcome, status="unchanged")


def serve_again(champion: RegisteredVersion, config: RetrainConfig, home: Home) -> ServedVersion:
    """Let the champion answer where it does not any more, for example after a reboot, or say why it does not.

    Where it still answers this only asks Triton whether it is ready.
    """
    from tasks.serving import rollout
    from tasks.serving.routing import read_routing
    from tasks.serving.triton_client import is_model_ready
    from tasks.serving.tritonserver import ensure_triton, running_triton, why_triton_cannot_run

    serving = config.serving
    name = rollout.triton_model_name(serving, champion.version)
    missing = why_triton_cannot_run()
    if missing:
        return ServedVersion(champion.version, name, False, f"not being served: {missing}; then: llm-retrain up")
    try:
        if read_routing(home.routing_file(serving.model_name)).champion != name:
            return _route_again(champion, config, home)
        was_running = running_triton(home) is not None
        address = ensure_triton(home, serving)
        was_ready = is_model_ready(address, name)
        if not was_ready:
            rollout.publish_version(champion, serving, home)
            rollout.load_version(address, name, serving)
    except LlmRetrainError as problem:
        return ServedVersion(champion.version, name, False, f"not being served: {problem} (start it: llm-retrain up)")
    how = "as before" if was_running and was_ready else "again: it was started or loaded by this command"
    return ServedVersion(champion.version, name, True, f"it answers for {serving.model_name} at {address.http} {how}")


def _route_again(champion: RegisteredVersion, config: RetrainConfig, home: Home) -> ServedVersion:
    """The routing table names another version, as after a crash: only a roll-out may change that, and it verifies."""
    from flows.rollout import switch_champion

    why = "the routing table did not name the champion"
    return switch_champion(champion, config, home, why, "promoted", champion.version)
