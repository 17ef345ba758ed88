"""The model card names what a version learned from."""

from pathlib import Path

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, EvalReport, GateDecision, Interval
from tasks.contracts.config import RetrainConfig
from tasks.contracts.training_config import TrainingSection
from tasks.registry.model_card import model_card


def test_the_card_counts_the_rows_trained_on_and_those_left_out():
    score = {"chrf": Interval(0.5, 0.4, 0.6)}
    card = model_card(
        BaseModelRef(Path("base"), "b" * 64, "dir:base"),
        DatasetRef(Path("rows"), "d" * 64, 110, train_rows=90, eval_rows=20, rejected={}, eval_digest="e" * 64),
        AdapterRef(Path("adapter"), "a" * 64, 84, tokens=9_000, final_loss=1.0, seconds=1.0, rows_too_long=6),
        EvalReport(Path("report"), "r" * 64, 20, {"base": score, "candidate": score}, {}, {}),
        GateDecision("promote", "base", ("better",)),
        RetrainConfig(training=TrainingSection(max_length_tokens=300)),
    )
    assert "- 84 rows, 9000 tokens" in card
    assert "- 6 rows left out, longer than 300 tokens" in card
