"""What a method begins with leaves the base model what it is."""

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.trainee import Place, Trainee


@pytest.mark.parametrize("method", ["prefix", "lora_prefix"])
def test_a_fresh_prefix_does_not_outshout_the_model(method, tmp_path):
    import torch

    base = make_tiny_base_model(tmp_path)
    training = TrainingSection(method=method, device="cpu", precision="fp32", virtual_tokens=20)
    trainee = Trainee(base, training, Place(torch.device("cpu"), torch.float32))
    (prefix,) = [each for each in trainee.virtual.prompt_encoder.parameters() if each.requires_grad]
    assert float(prefix.std()) == pytest.approx(0.02, rel=0.1)
    assert float(prefix.std(dim=0).min()) > 0, "virtual tokens that are alike would stay alike"
