"""Tiny models, which train fastest in one thread: two tests beside each other do not wait for each other's."""

import pytest
from tiny_model import make_tiny_base_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a tiny base model."""
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cpu():
    """Where the plans of these tests compute."""
    import torch

    from tasks.training.loop.trainee import Place

    return Place(torch.device("cpu"), torch.float32)
