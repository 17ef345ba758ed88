"""What benchmarks/training.py counts and makes of its figures."""

import json

import pytest

from tasks.contracts.home import PROJECT_ROOT

SHAPE = {
    "hidden_size": 6,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "vocab_size": 20,
}


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "benchmarks"))
    import training

    return training


def test_model_flops_are_four_a_frozen_weight_and_token_with_head_and_attention(training, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    order = {"base": str(tmp_path), "train": [[[1, 2, 3], [4, 5]], [[1], [2]]]}
    layer = 6 * 6 + 2 * 6 * 2 + 6 * 6 + 3 * 6 * 10  # query, key and value, output, feed-forward
    attention = 6 * 2 * 6 * (5**2 + 2**2)
    assert training.model_flops(order) == 4 * 2 * layer * 7 + 4 * 20 * 6 * 3 + attention


def test_ratios_are_made_of_medians_and_shares_of_the_rounds_own_peak(training):
    def runs(seconds, loss):
        figures = {"seconds": seconds, "whole_s": seconds, "loss": loss, "peak_mb": [1.0] * len(seconds)}
        return training.summed_up(figures, 100, 4e9, [2, 1, 1])

    contestants = {
        training.OURS: runs([1.0, 2.0, 4.0], [2.04, 2.02, 2.03]),
        training.TRL: runs([8.0, 16.0, 10.0], [2.0] * 3),
        training.TRAINER: runs([5.0, 4.0, 3.0], [2.0] * 3),
        training.FP32: runs([30.0] * 3, [2.0] * 3),
    }
    assert contestants[training.OURS]["tokens_per_s"] == [25.0, 50.0, 100.0]
    assert training.ratios(contestants) == {
        "tokens_per_s_vs_trl_default": 5.0,
        "tokens_per_s_vs_trainer_peft": 2.0,
        "share_of_matmul_peak": 2.0,
        "loss_difference_vs_fp32": pytest.approx(0.015),
    }
