"""Which device and which precision are chosen."""

import pytest

from tasks.contracts.training_config import TrainingSection
from tasks.training.device import choose_device


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_bf16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch, native, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # An older GPU says yes unless it is asked about its own arithmetic.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_device(TrainingSection()) == (torch.device("cuda"), getattr(torch, expected))
