"""`status` and `history` on a terminal of 80 columns: times tell the lines apart, and verdicts are whole."""

from rich.console import Console

from flows.terminal.outcome import render_history
from flows.terminal.overview import render_overview

LONG = "started by hand because somebody asked for it, and for many more reasons than fit into a line"
VERSION = {"version": 12, "aliases": "champion, previous", "verdict": "inconclusive", "baseline": "champion"}
VERSION |= {"overruled": "", "score": 0.3072, "engine": "transformers", "servable": "0123456789ab", "preferred": []}
MOVE = {"time": "2026-11-23T02:45:10+00:00", "who": "somebody", "event": "rolled back", "from": 1, "to": 2}
MOVE |= {"why": LONG, "evidence": LONG}
RUN = {"started": "2026-11-23T02:45:10+00:00", "kind": "retrain", "verdict": "inconclusive", "version": "12"}
RUN |= {"reason": LONG}


def shown(render, *told):
    console = Console(width=80)
    with console.capture() as captured:
        render(console, *told)
    return captured.get()


def test_history_keeps_times_and_verdicts_whole():
    text = shown(render_history, [VERSION | {"preferred": ["people prefer it in 7 of 9 rows"]}], [MOVE], "rougeL")
    for whole in ("11-23 02:45", "rolled back", "inconclusive", "people prefer it in 7 of 9 rows"):
        assert whole in text
    text = shown(render_history, [VERSION | {"preferred": ["People (A[b]\x1b) preferred it"]}], [], "rougeL")
    assert "Version 12: People (A[b]\N{REPLACEMENT CHARACTER}) preferred it" in text


def test_history_says_of_a_version_what_a_person_decided_against_it():
    assert "rolled back" in shown(render_history, [VERSION | {"overruled": "rolled back"}], [], "rougeL")


def test_status_says_what_waits_for_a_decision_and_how_to_decide():
    facts = {"home": "/home", "services": [], "champion": None, "warning": "", "last_runs": [], "unsent_runs": 0}
    waiting = {"waiting": {"version": 3, "until": "2026-11-25T09:30:00+00:00", "status": "open"}}
    text = shown(render_overview, {**facts, **waiting, "unfinished_trainings": {"trainings": 0, "bytes": 0}})
    assert "version 3, for your decision, until 11-25 09:30" in " ".join(text.split())
    assert "llm-retrain approve 3" in " ".join(text.split())


def test_status_keeps_times_and_verdicts_whole():
    facts = {"home": "/home", "services": [], "champion": None, "warning": "", "waiting": None, "last_runs": [RUN]}
    text = shown(render_overview, {**facts, "unfinished_trainings": {"trainings": 0, "bytes": 0}, "unsent_runs": 0})
    for whole in ("11-23 02:45", "retrain", "inconclusive"):
        assert whole in text
