from pathlib import Path
from types import SimpleNamespace

from tasks.contracts.artifacts import EvalReport, Interval, Preference
from tasks.registry.preference_figures import preference_figures
from tasks.registry.tracking import TrackedRun

SAID = Preference(
    *("judge", ("m",), "champion", 40, 20, 13, 7, Interval(0.66, 0.56, 0.75), 0.01, 0.99, 4, 2),
    *(Interval(0.1, 0.0, 0.2), 0.25, 72, 3, 1),
)
FAILED = Preference("judge", ("m",), "base", 0, 0, 0, 0, Interval(0.5, 0, 1), 1, 1, problem="it was down")


def test_what_was_preferred_is_a_figure_each_and_a_failure_is_none():
    figures = preference_figures((SAID, FAILED))
    name = "judge/candidate_vs_champion"
    assert figures == {
        f"{name}/share": 0.66,
        f"{name}/share/low": 0.56,
        f"{name}/share/high": 0.75,
        f"{name}/position_bias": 0.1,
        f"{name}/position_bias/low": 0.0,
        f"{name}/position_bias/high": 0.2,
        **{f"{name}/{key}": value for key, value in zip(("wins", "ties", "losses"), (20.0, 13.0, 7.0), strict=True)},
        f"{name}/examples": 40.0,
        f"{name}/p_better": 0.01,
        f"{name}/p_worse": 0.99,
        f"{name}/identical": 4.0,
        f"{name}/left_out": 2.0,
        f"{name}/questions": 72.0,
        f"{name}/failed": 3.0,
        f"{name}/unreadable": 1.0,
        f"{name}/inconsistent": 0.25,
    }
    assert preference_figures(()) == {}


def test_a_run_logs_them_with_its_report(tmp_path):
    entries = []
    run = TrackedRun.__new__(TrackedRun)
    run._sender = SimpleNamespace(add=entries.append)
    run.log_report(EvalReport(Path(tmp_path), "", 40, {}, {}, {}, preferences=(SAID,)))
    points = {key: value for entry in entries if entry["kind"] == "points" for key, value, *_ in entry["metrics"]}
    assert points == preference_figures((SAID,))
