"""A run whose verdict is open only because the judge failed is not finished: the judge is asked again."""

from types import SimpleNamespace

import pytest

from flows import finished
from tasks.contracts.artifacts import Interval, Predictions, Preference, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.report import build_report

FAILED = Preference("judge", ("m",), "base", 0, 0, 0, 0, Interval(0.5, 0, 1), 1, 1, problem="it was down")
UNSURE = Preference("judge", ("m",), "base", 40, 10, 20, 10, Interval(0.5, 0.4, 0.6), 0.6, 0.6)
CONFIG = RetrainConfig.model_validate(
    {
        "evaluation": {"resamples": 200, "judge": {"url": "http://127.0.0.1:9/v1", "model": "m"}},
        "gate": {"judge": "require"},
    }
)


AS_GOOD, WORSE = "A number, {n}: {letter}.", "{letter}"
"""What both say, with other letters; the second is the candidate's where it is worse."""


@pytest.mark.parametrize(
    ("said", "answer", "verdict", "is_finished"),
    [
        ((FAILED,), AS_GOOD, "inconclusive", False),
        ((UNSURE,), AS_GOOD, "inconclusive", True),
        ((), AS_GOOD, "inconclusive", True),
        ((FAILED,), WORSE, "reject", True),
    ],
)
def test_what_the_judge_could_not_say_is_asked_again_if_anything_hangs_on_it(
    said, answer, verdict, is_finished, home, monkeypatch
):
    version = judged_version(home, answer, verdict, said)
    monkeypatch.setattr("tasks.registry.versions.find_version_by_alias", lambda *_: None)
    outcome = finished._recall(version, CONFIG, home)
    assert (outcome is not None) is is_finished
    if outcome is not None:
        assert outcome.verdict == verdict and len(outcome.preferences) == len(said)


def test_a_verdict_is_the_one_that_was_given_also_where_the_rules_have_changed_since(home, monkeypatch):
    monkeypatch.setattr("tasks.registry.versions.find_version_by_alias", lambda *_: None)
    outcome = finished._recall(judged_version(home, AS_GOOD, "promote"), CONFIG, home)
    assert (outcome.verdict, outcome.exit_code) == ("promote", 0)
    assert outcome.reasons[0] == "By the rules of today it would be: inconclusive."


@pytest.mark.parametrize(("is_champion", "code"), [(True, 0), (False, 3)])
def test_a_person_decided_against_it_only_where_it_is_not_champion(is_champion, code, home, monkeypatch):
    """A promotion by hand that was killed before its ledger line has made it champion again."""
    version = judged_version(home, AS_GOOD, "promote")
    champion = version if is_champion else None
    monkeypatch.setattr("tasks.registry.versions.find_version_by_alias", lambda *_: champion)
    monkeypatch.setattr("tasks.registry.ledger.overruled_versions", lambda *_: {1: "rolled back"})
    monkeypatch.setattr(finished, "serve_again", lambda *_: ServedVersion(1, "assistant-v1", True, "as before"))
    outcome = finished._recall(version, CONFIG, home)
    assert (outcome.exit_code, bool(outcome.overruled)) == (code, not is_champion)


def judged_version(home, answer, verdict, said=()):
    """Return a version with a report on 40 rows."""
    store, answers = Store(home.store), {}
    for system in ("base", "candidate"):
        lines = [
            {
                "id": f"{n:064x}",
                "messages": [{"role": "user", "content": f"What is {n}?"}],
                "reference": f"A number, {n}.",
                "answer": (AS_GOOD if system == "base" else answer).format(
                    n=n, letter="ab"[(n + (system == "base")) % 2]
                ),
            }
            for n in range(40)
        ]
        entry = store.produce(
            "predictions",
            {"of": system},
            lambda out, lines=lines: {"rows": write_jsonl(out / "predictions.jsonl", lines)},
        )
        answers[system] = Predictions(entry.path, entry.digest, 40, 1.0)
    report = build_report(answers, CONFIG.evaluation, store, Evidence(preferences=said))
    tags = {"champion_before": "none"}
    paths = {"report_path": report.path, "predictions_path": answers["candidate"].path, "review_path": None}
    return SimpleNamespace(version=1, name="assistant", run_id="r", verdict=verdict, tags=tags, **paths)
