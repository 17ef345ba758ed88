"""A run whose verdict is open only because the judge failed is not finished: the judge is asked again."""

from types import SimpleNamespace

import pytest

from flows import finished
from tasks.contracts.artifacts import Interval, Predictions, Preference
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
    version = SimpleNamespace(version=1, name="assistant", run_id="r", tags=tags, **paths)
    monkeypatch.setattr("tasks.registry.versions.find_version_by_alias", lambda *_: None)
    outcome = finished._recall(version, CONFIG, home)
    assert (outcome is not None) is is_finished
    if outcome is not None:
        assert outcome.verdict == verdict and len(outcome.preferences) == len(said)
