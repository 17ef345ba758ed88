"""Fixtures that several areas share: a state directory of its own, and a Triton server that always ends."""

import pytest
from servers import free_ports, skip_without_triton

from tasks.contracts.config import ServingSection
from tasks.contracts.home import Home
from tasks.serving.tritonserver import stop_tritonserver


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh state directory, which the code under test also finds through the environment."""
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture
def triton_serving():
    """The serving section with free ports and short answers."""
    http_port, grpc_port, metrics_port = free_ports(3)
    return ServingSection(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, max_new_tokens=12)


@pytest.fixture
def triton_home(home):
    """A fresh state directory whose Triton server, if the test starts one, is stopped at the end."""
    skip_without_triton()
    yield home
    stop_tritonserver(home)
