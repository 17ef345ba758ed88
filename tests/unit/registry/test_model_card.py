"""The model card names what a version is, what it learned from and what was left out."""

from pathlib import Path

import pytest

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, EvalReport, GateDecision, Interval
from tasks.contracts.config import RetrainConfig, ServingSection
from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection
from tasks.registry.model_card import model_card


def card_of(training, **counts):
    """Return the card of an adapter that was trained as a section says."""
    score = {"chrf": Interval(0.5, 0.4, 0.6)}
    counts = {"rows_too_long": 6, "longest_row_tokens": 300, **counts}
    return model_card(
        BaseModelRef(Path("base"), "b" * 64, "dir:base"),
        DatasetRef(Path("rows"), "d" * 64, 110, train_rows=90, eval_rows=20, rejected={}, eval_digest="e" * 64),
        AdapterRef(Path("adapter"), "a" * 64, 84, tokens=9_000, final_loss=1.0, seconds=1.0, **counts),
        EvalReport(Path("report"), "r" * 64, 20, {"base": score, "candidate": score}, {}, {}),
        GateDecision("promote", "base", ("better",)),
        RetrainConfig(training=training, serving=ServingSection(engine="transformers")),
    )


def test_the_card_counts_the_rows_trained_on_and_those_left_out_or_cut_off():
    card = card_of(TrainingSection(), rows_cut_off=2)
    assert "- 84 rows, 9000 tokens, 1 epochs" in card
    assert "- 6 rows left out, longer than 300 tokens" in card
    assert "- 2 rows trained on without the end of their answer, longer than 300 tokens" in card
    assert "cut off" not in card_of(TrainingSection())
    assert "without the end" not in card_of(TrainingSection())


@pytest.mark.parametrize("method", list(METHODS))
def test_the_card_says_what_was_trained_and_at_which_learning_rate(method):
    card = card_of(TrainingSection(method=method, rank=4, alpha=8, virtual_tokens=7))
    first = card.splitlines()[2]
    expected = {
        "full": "All weights of `dir:base`, fine-tuned.",
        "lora": "A LoRA adapter for `dir:base` (rank 4, alpha 8).",
        "ia3": "An IA³ adapter for `dir:base`.",
        "prefix": "A prefix tuning adapter for `dir:base` (7 virtual tokens).",
        "lora_prefix": "A LoRA with a prefix adapter for `dir:base` (rank 4, alpha 8, 7 virtual tokens).",
    }
    assert first == expected.get(method, first)
    assert METHODS[method].title in first or method == "full"
    assert f"- peak learning rate {METHODS[method].learning_rate:g}, cosine" in card
    whole = "`adapter/` is the whole model" in card
    assert whole is (method == "full")
    assert ("adapter/virtual_tokens" in card) is (method == "lora_prefix")


def test_the_card_names_objective_and_guards():
    full = TrainingSection(
        method="full", replay="12345678", replay_share=0.2, ewc_weight=100, new_tokens=("⊕",), learning_rate=0.5
    )
    card = card_of(full)
    assert "- peak learning rate 0.5, cosine" in card
    assert "- 1 new tokens in the vocabulary" in card
    assert "- 20% of the rows of an epoch replayed from data version `12345678`" in card
    assert "- elastic weight consolidation, weight 100" in card
    assert "preference tuning (DPO, beta 0.1)" in card_of(TrainingSection(objective="dpo"))
    taught = TrainingSection(objective="distillation", teacher="dir:/large")
    assert "distillation from `dir:/large` (weight 0.5)" in card_of(taught)
    resized = card_of(TrainingSection(new_tokens=("⊕",)))
    assert "after `base.resize_token_embeddings(len(tokenizer))`" in resized
