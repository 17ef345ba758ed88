"""Fixtures that several areas share, and how tests share the machine when several files run at a time."""

import os

import pytest
from portions import place_in_order, portion_of
from servers import free_ports, skip_without_triton

from tasks.contracts.config import ServingSection
from tasks.contracts.home import Home
from tasks.serving.tritonserver import stop_tritonserver


def pytest_configure(config):
    """Keep each process of pytest-xdist, and all that it starts, to its own processors.

    Two trainings that each take all of them wait for each other's threads and become ten times slower.
    """
    workers = getattr(config, "workerinput", None)
    if workers is not None:
        number, count = int(workers["workerid"].removeprefix("gw")), int(workers["workercount"])
        own = sorted(os.sched_getaffinity(0))[number::count]
        if own:
            os.sched_setaffinity(0, own)


def pytest_collection_modifyitems(items):
    """The longest portions first: the short ones fill up the end, where a long one would run alone."""
    items.sort(key=lambda item: place_in_order(portion_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out portions of tests where pytest-xdist is asked to keep the tests of a file together."""
    from xdist.scheduler import LoadFileScheduling

    class PortionScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return portion_of(nodeid)

    return PortionScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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


@pytest.fixture
def no_prefect_server(monkeypatch):
    """Point the Prefect client at a port that nobody listens on, and leave out its pauses between tries to connect."""
    import httpcore
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    monkeypatch.setattr(httpcore.NetworkBackend, "sleep", lambda *_: None)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
