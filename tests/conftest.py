"""Fixtures that several areas share: a state directory of its own, and a Triton server that always ends."""

import os
import socket

import pytest

from tasks.contracts.config import ServingSection
from tasks.contracts.home import Home
from tasks.serving.tritonserver import stop_tritonserver, why_triton_cannot_run


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


def skip_without_triton():
    """Skip where Triton cannot run; `make test` says that it must, and then it is a failure."""
    reason = why_triton_cannot_run()
    if reason is not None:
        if os.environ.get("LLM_RETRAIN_REQUIRE_TRITON"):
            pytest.fail(reason)
        pytest.skip(reason)


def free_ports(count):
    """Return ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
