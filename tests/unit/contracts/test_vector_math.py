"""Processes that compute with torch choose its kernels before their threads need them; the race itself is too rare."""

import pytest
import torch

from tasks.contracts.vector_math import settle_vector_math
from tasks.serving import build_process, parity_process
from tasks.training import process as training_process


def test_every_function_is_called_on_a_single_number_of_each_type(monkeypatch):
    called = []
    for name in ("cos", "sqrt", "trunc"):
        monkeypatch.setattr(torch, name, lambda number, name=name: called.append((name, number.dtype, number.numel())))
    settle_vector_math()
    wanted = {(name, dtype, 1) for name in ("cos", "sqrt", "trunc") for dtype in (torch.float32, torch.float64)}
    assert set(called) == wanted and len(called) == 6


@pytest.mark.parametrize(
    ("process", "begin"),
    [
        (build_process, lambda: build_process.run({})),
        (parity_process, lambda: parity_process.run({})),
        (training_process, lambda: training_process._train({}, None, None)),
    ],
)
def test_a_process_that_computes_with_torch_begins_with_that(process, begin, monkeypatch):
    def settle():
        raise InterruptedError("settled first")

    monkeypatch.setattr(process, "settle_vector_math", settle)
    with pytest.raises(InterruptedError):
        begin()
