"""What `llm-retrain status` and `history` tell: services, champion, versions, last runs."""

import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.outcome import one_line
from flows.terminal.outcome import short_time
from tasks.contracts.config import RetrainConfig, ServingSection
from tasks.contracts.errors import EvaluationError
from tasks.contracts.home import Home

log = logging.getLogger("llm_retrain.status")

_LAST_RUNS = 5


def version_lines(config: RetrainConfig, home: Home) -> list[dict[str, Any]]:
    """Return a line a registered version, newest first; what its report does not tell any more is None."""
    from tasks.evaluation.preference_sentence import sentence
    from tasks.registry.ledger import overruled_versions
    from tasks.registry.people import preferences_by_people
    from tasks.registry.versions import find_version_by_alias, list_versions

    aliases: dict[int, list[str]] = {}
    for alias in ("champion", "challenger", "previous"):
        version = find_version_by_alias(config.registry, alias, home)
        if version is not None:
            aliases.setdefault(version.version, []).append(alias)
    lines, overruled = [], overruled_versions(home, config.registry.model_name)
    for version in list_versions(config.registry, home):
        lines.append(
            {
                "version": version.version,
                "aliases": ", ".join(aliases.get(version.version, [])),
                "verdict": version.verdict,
                "overruled": overruled.get(version.version, ""),
                "baseline": version.tags.get("baseline"),
                "score": _score(version.report_path, config.gate.primary_metric),
                "engine": version.tags.get("engine"),
                "servable": version.servable_digest[:12],
                "preferred": [sentence(said) for said in preferences_by_people(version)],
                "mlflow_run": version.run_id,
            }
        )
    return lines


def _score(report_path: Path, metric: str) -> float | None:
    """Read a candidate's score; one lost report must not hide all the others."""
    from tasks.evaluation.report import load_report

    try:
        return round(load_report(report_path).scores["candidate"][metric].value, 4)
    except (EvaluationError, KeyError) as error:
        log.warning("%s tells no score: %s", report_path, error)
        return None


def overview(config: RetrainConfig, home: Home) -> dict[str, Any]:
    """Return services, champion and the last runs as plain facts."""
    from dataclasses import asdict

    from flows.services import service_states
    from tasks.registry.connection import connect
    from tasks.registry.leftovers import send_leftovers
    from tasks.registry.tracking import last_runs
    from tasks.serving.routing import read_routing

    unsent = send_leftovers(connect(config.registry, home), config.registry, home)
    versions = version_lines(config, home)
    champion = next((line for line in versions if "champion" in line["aliases"]), None)
    answers = read_routing(home.routing_file(config.serving.model_name)).champion
    return {
        "home": str(home.root),
        "services": [asdict(state) for state in service_states(home)],
        "champion": champion,
        "primary_metric": config.gate.primary_metric,
        "waiting": waiting_facts(config, home),
        "answers": answers,
        "warning": disagreement(champion["version"] if champion else None, answers, config.serving),
        "last_runs": last_runs(config.registry, home, _LAST_RUNS),
        "unfinished_trainings": unfinished_facts(home),
        "unsent_runs": unsent,
    }


def waiting_facts(config: RetrainConfig, home: Home) -> dict[str, Any] | None:
    """Return the version that waits for a person, or for its roll-out after one, and until when; None if none does."""
    from tasks.registry.approvals import pending

    waiting = pending(home, config.registry.model_name)
    if waiting is None:
        return None
    return {"version": waiting.request.version, "until": waiting.request.expires, "status": waiting.status}


def unfinished_facts(home: Home) -> dict[str, int]:
    """Return how many trainings have checkpoints, which go when they are finished or after 30 days, and their bytes."""
    from tasks.contracts.store import Store
    from tasks.training.adapter import unfinished_trainings

    folders = unfinished_trainings(Store(home.store))
    sizes = [path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {"trainings": len(folders), "bytes": sum(sizes)}


def disagreement(champion: int | None, answers: str | None, serving: ServingSection) -> str:
    """Say that another version answers than the one that is champion; the empty string if it is the same.

    Args:
        champion: the version with the alias, if any.
        answers: the Triton model that the routing table names, if any.
        serving: the served model's name.
    """
    from tasks.serving.rollout import triton_model_name

    if champion is None:
        return "" if answers is None else f"{answers} answers for {serving.model_name}, and no version is champion"
    if answers == triton_model_name(serving, champion):
        return ""
    return (
        f"version {champion} is champion, and {answers or 'nothing'} answers for {serving.model_name}; "
        f"llm-retrain promote {champion} puts that right"
    )


def render_overview(console: Console, facts: dict[str, Any]) -> None:
    """Show the facts as two tables and a line on the champion."""
    services = Table(title=f"Services ({escape(facts['home'])})", title_justify="left")
    for column in ("service", "state", "address"):
        services.add_column(column)
    for state in facts["services"]:
        services.add_row(state["name"], state["state"], state["address"])
    console.print(services)
    champion = facts["champion"]
    if champion is None:
        console.print("No champion yet; llm-retrain run --preset quickstart makes one.")
    else:
        score = "–" if champion["score"] is None else champion["score"]
        name = f"version {champion['version']} ({facts['primary_metric']} {score})"
        console.print(f"Champion: {name}, answering as {facts['answers']}")
    if waiting := facts["waiting"]:
        what = "for your decision" if waiting["status"] == "open" else "approved, and not rolled out yet"
        console.print(
            f"[bold cyan]Waiting[/]: version {waiting['version']}, {what}, until "
            f"{short_time(waiting['until'])} UTC: llm-retrain approve {waiting['version']} --reason …, or reject"
        )
    if facts["warning"]:
        console.print(f"[bold yellow]Warning[/]: {escape(facts['warning'])}")
    unfinished = facts["unfinished_trainings"]
    if unfinished["trainings"]:
        console.print(
            f"Unfinished trainings: {unfinished['trainings']}, whose checkpoints take "
            f"{unfinished['bytes'] / 1e9:.2f} GB; what runs now is one of them, and from others the same run goes on"
        )
    if facts["unsent_runs"]:
        console.print(f"Runs that MLflow has not taken all of: {facts['unsent_runs']}; the next status tries again")
    runs = Table(title="Last runs", title_justify="left")
    for column in ("started (UTC)", "kind", "verdict", "version", "reason"):
        runs.add_column(column, no_wrap=column != "reason")
    for line in facts["last_runs"]:
        cells = (short_time(line["started"]), *(str(line[key]) for key in ("kind", "verdict", "version", "reason")))
        runs.add_row(*(escape(one_line(cell, 400)) for cell in cells))
    console.print(runs)
