"""What `llm-retrain status` and `history` tell: services, champion, versions, last runs."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home

_LAST_RUNS = 5


def version_lines(config: RetrainConfig, home: Home) -> list[dict[str, Any]]:
    """Return a line a registered version, newest first."""
    from tasks.evaluation.report import load_report
    from tasks.registry.versions import find_version_by_alias, list_versions

    aliases: dict[int, list[str]] = {}
    for alias in ("champion", "challenger", "previous"):
        version = find_version_by_alias(config.registry, alias, home)
        if version is not None:
            aliases.setdefault(version.version, []).append(alias)
    lines = []
    for version in list_versions(config.registry, home):
        scores = load_report(version.report_path).scores["candidate"]
        lines.append(
            {
                "version": version.version,
                "aliases": ", ".join(aliases.get(version.version, [])),
                "verdict": version.verdict,
                "baseline": version.tags["baseline"],
                "rougeL": round(scores["rougeL"].value, 4),
                "engine": version.tags["engine"],
                "servable": version.servable_digest[:12],
                "mlflow_run": version.run_id,
            }
        )
    return lines


def overview(config: RetrainConfig, home: Home) -> dict[str, Any]:
    """Return services, champion and the last runs as plain facts."""
    from dataclasses import asdict

    from flows.services import service_states
    from tasks.registry.tracking import last_runs
    from tasks.serving.routing import read_routing

    versions = version_lines(config, home)
    champion = next((line for line in versions if "champion" in line["aliases"]), None)
    routing = read_routing(home.routing_file(config.serving.model_name))
    return {
        "home": str(home.root),
        "services": [asdict(state) for state in service_states(home)],
        "champion": champion,
        "answers": routing.champion,
        "last_runs": last_runs(config.registry, home, _LAST_RUNS),
    }


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
        console.print(
            f"Champion: version {champion['version']} (ROUGE-L {champion['rougeL']}), answering as {facts['answers']}"
        )
    runs = Table(title="Last runs", title_justify="left")
    for column in ("started", "kind", "verdict", "version", "reason"):
        runs.add_column(column)
    for line in facts["last_runs"]:
        runs.add_row(*(escape(str(line[key])) for key in ("started", "kind", "verdict", "version", "reason")))
    console.print(runs)
