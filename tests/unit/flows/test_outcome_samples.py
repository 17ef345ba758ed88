"""The rows that the end of a run shows: prompt, reference and an answer a system, and nothing else of the report."""

from types import SimpleNamespace

from flows.outcome import outcome_of
from tasks.contracts.artifacts import EvalReport, GateDecision
from tasks.contracts.config import RetrainConfig
from tasks.contracts.jsonl import write_jsonl


def test_a_sample_has_no_column_for_slice_set_or_scores(tmp_path):
    texts = {"prompt": "?", "reference": "!", "base": "a", "candidate": "b"}
    write_jsonl(tmp_path / "predictions.jsonl", [{"id": "0", "slice": "s", "set": "recent", **texts, "scores": {}}])
    (tmp_path / "own").mkdir()
    asked = {"id": "0", "messages": [{"role": "user", "content": "?"}], "answer": "b"}
    write_jsonl(tmp_path / "own" / "predictions.jsonl", [asked])
    version = SimpleNamespace(version=1, predictions_path=tmp_path / "own")
    report = EvalReport(tmp_path, "", 1, {}, {}, {})
    outcome = outcome_of(report, GateDecision("reject", "base", ()), version, None, RetrainConfig(), {})
    assert outcome.samples == (texts,)
