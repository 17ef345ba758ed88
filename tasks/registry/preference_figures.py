"""Whose answers were preferred, as figures of an MLflow run."""

from collections.abc import Iterable
from dataclasses import asdict

from tasks.contracts.artifacts import Preference

_COUNTS = ("examples", "wins", "ties", "losses", "p_better", "p_worse", "identical", "left_out")
_JUDGE = ("questions", "failed", "unreadable", "inconsistent")


def preference_figures(preferences: Iterable[Preference]) -> dict[str, float]:
    """Return metric names with figures: `judge/candidate_vs_champion/share`, `people/candidate_vs_version-3/share`, …

    What has nothing to count has no figures.
    """
    figures: dict[str, float] = {}
    for said in preferences:
        if said.problem:
            continue
        facts, name = asdict(said), f"{said.kind}/candidate_vs_{said.baseline.replace(' ', '-')}"
        intervals = {"share": said.share, "position_bias": said.position_bias}
        for key, interval in intervals.items():
            if interval is not None:
                figures |= {f"{name}/{key}": interval.value}
                figures |= {f"{name}/{key}/low": interval.low, f"{name}/{key}/high": interval.high}
        keys = (*_COUNTS, *(_JUDGE if said.kind == "judge" else ()), "agreement")
        figures |= {f"{name}/{key}": float(facts[key]) for key in keys if facts[key] is not None}
    return figures
