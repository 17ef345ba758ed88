"""benchmarks/gpu.py runs the product's training process at a tiny shape on a CPU, and refuses without a CUDA device."""

import os
import subprocess
import sys

import pytest

from tasks.contracts.home import PROJECT_ROOT

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "benchmarks"))
    import gpu

    return gpu


def test_every_case_has_the_shape_it_is_named_after(gpu):
    from training_flops import layer_shapes

    counted = {}
    for case in gpu.CASES:
        weights = case.shape["num_hidden_layers"] * sum(rows * columns for rows, columns in layer_shapes(case.shape))
        tables = 1 if case.shape.get("tie_word_embeddings") else 2
        counted[case.name[:2]] = weights + tables * case.shape["vocab_size"] * case.shape["hidden_size"]
    assert {name: round(count / 1e9, 2) for name, count in counted.items()} == {"8B": 8.03, "1B": 1.24}


@pytest.mark.parametrize(("method", "checkpointing"), [("lora", False), ("lora", True), ("qlora", False)])
def test_a_tiny_shape_trains_and_all_figures_are_there(gpu, method, checkpointing, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(gpu, "RESULT", tmp_path / "gpu.json")
    case = gpu.Case("tiny", SHAPE, (16, 9, 12), method, checkpointing)
    figures = gpu.measure(case, "cpu", steps=2)
    assert figures["tokens_per_s"] * figures["seconds_a_step"] == pytest.approx(sum(case.lengths), rel=0.3)
    assert figures["first_loss"] == pytest.approx(torch.tensor(64.0).log().item(), abs=0.2)
    assert figures["micro_batch_tokens"] <= 3 * 16
    assert figures["peak_gb"] > 0.1 and figures["model_tflops_per_s"] > 0


def test_the_rows_have_the_tokens_that_the_case_names(gpu, tmp_path):
    from transformers import AutoTokenizer

    from tasks.training.loop.examples import RowEncoder

    gpu.make_base(SHAPE, tmp_path, "cpu")
    encoder = RowEncoder(AutoTokenizer.from_pretrained(tmp_path), "")
    encoded = [encoder.encode(row) for row in gpu.rows_of((12, 7, 9), steps=2)]
    assert [len(example) for example in encoded] == [12, 7, 9] * 2
    assert {len(example.prompt_ids) for example in encoded} == {4}, "nearly all is learned"


def test_without_a_cuda_device_it_says_so_in_one_sentence():
    script = PROJECT_ROOT / "benchmarks" / "gpu.py"
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "benchmarks/gpu.py needs a CUDA device, and PyTorch sees none; on a CPU use `make bench-train`"
    )
