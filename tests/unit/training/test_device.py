"""Which device and which precision are chosen."""

import pytest

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.device import choose_device


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_bf16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch, native, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # An older GPU says yes unless it is asked about its own arithmetic.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_device(TrainingSection()) == (torch.device("cuda"), getattr(torch, expected))


def test_consolidation_is_refused_where_auto_is_fp16(monkeypatch):
    """Its squared gradients of single rows have no loss scaling."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    settings = {"method": "full", "replay": "01234567", "ewc_weight": 1e6}
    said = r"training\.ewc_weight is 1e\+06, and training\.precision auto is fp16 .* expected bf16 or fp32"
    with pytest.raises(TrainingError, match=said):
        choose_device(TrainingSection(**settings))
    assert choose_device(TrainingSection(**settings, precision="bf16"))[1] == torch.bfloat16
