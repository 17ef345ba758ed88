"""benchmarks/gpu.py takes its steps at a tiny shape on a CPU, and refuses without a CUDA device."""

import os
import subprocess
import sys
from dataclasses import replace

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
    counted = {}
    for case in gpu.CASES:
        weights = case.shape["num_hidden_layers"] * sum(
            rows * columns for rows, columns in gpu.layer_shapes(case.shape)
        )
        tables = 1 if case.shape.get("tie_word_embeddings") else 2
        counted[case.name[:2]] = weights + tables * case.shape["vocab_size"] * case.shape["hidden_size"]
    assert {name: round(count / 1e9, 2) for name, count in counted.items()} == {"8B": 8.03, "1B": 1.24}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_tiny_shape_trains_and_all_figures_are_there(gpu, checkpointing):
    import torch

    case = gpu.Case("tiny", SHAPE, (12, 7, 9), checkpointing=checkpointing)
    figures = gpu.measure(case, torch.device("cpu"), steps=2)
    assert len(figures["seconds_a_step"]) == 2
    assert figures["tokens_per_s"] * sorted(figures["seconds_a_step"])[0] <= sum(case.lengths) * 1.001
    assert figures["first_loss"] == pytest.approx(torch.tensor(64.0).log().item(), abs=0.2)


def test_padding_changes_no_loss(gpu):
    """The loss of a row does not depend on the longer row beside it."""
    import torch

    case = gpu.Case("tiny", SHAPE, (9, 9))
    model = gpu.build(case, torch.device("cpu")).float()
    torch.manual_seed(3)
    bare = gpu.step_loss(model, replace(case, lengths=(9,)), torch.device("cpu")).item()
    torch.manual_seed(3)
    ids = torch.randint(64, (1, 9))
    own = model(input_ids=ids, labels=ids).loss.item()
    assert bare == pytest.approx(own, abs=1e-4)


def test_without_a_cuda_device_it_says_so_in_one_sentence():
    script = PROJECT_ROOT / "benchmarks" / "gpu.py"
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "benchmarks/gpu.py needs a CUDA device, and PyTorch sees none; on a CPU use `make bench-train`"
    )
