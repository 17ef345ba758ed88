"""What the services are told, and ports that somebody else has."""

import socket

import pytest
from servers import free_ports

from flows.services import down, prefect_api_url, quiet_environment, service_states, up
from flows.services.environment import MLFLOW_PORT, PREFECT_PORT, port_from_environment, service_environment
from tasks.contracts.config import RetrainConfig, ServingSection, validate_config
from tasks.contracts.errors import EnvironmentProblem


@pytest.fixture(autouse=True)
def free_default_ports(monkeypatch):
    """The default ports may be somebody's on this machine."""
    for variable, port in zip((PREFECT_PORT, MLFLOW_PORT), free_ports(2), strict=True):
        monkeypatch.setenv(variable, str(port))


@pytest.fixture
def taken():
    """A port that this process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_nothing_leaves_the_machine_unasked(home):
    quiet = quiet_environment(home)
    assert quiet["DO_NOT_TRACK"] == "true"
    assert quiet["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert quiet["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "HF_HUB_OFFLINE" not in quiet
    assert quiet["PREFECT_HOME"] == str(home.prefect)


def test_local_addresses_go_past_a_proxy_and_the_users_exceptions_stay(home, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "internal.example")
    monkeypatch.setenv("no_proxy", "localhost,other.example")
    quiet = quiet_environment(home)
    assert quiet["no_proxy"] == quiet["NO_PROXY"] == "localhost,other.example,internal.example,127.0.0.1"


def test_prefect_reads_these_names(home, monkeypatch):
    """A setting that Prefect renames would be ignored without a word."""
    from prefect.settings.models.root import Settings

    for name, value in service_environment(home, 4321).items():
        if name.startswith("PREFECT_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.home == home.prefect
    assert settings.api.url == "http://127.0.0.1:4321/api"
    assert settings.server.api.port == 4321
    assert settings.server.ui.api_url == "http://127.0.0.1:4321/api"
    assert settings.server.analytics_enabled is False
    assert settings.server.ephemeral.startup_timeout_seconds == 120
    assert settings.worker.query_seconds == 5
    assert settings.logging.extra_loggers == ["llm_retrain"]
    assert settings.logging.to_api.when_missing_flow == "ignore"
    assert settings.logging.colors is False


def test_the_worker_gets_the_home_and_the_serving_environment_as_absolute_paths(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", "serving")
    environment = service_environment(home, 4200)
    assert environment["LLM_RETRAIN_HOME"] == str(home.root)
    assert environment["LLM_RETRAIN_SERVING_ENV"] == str(tmp_path / "serving")


@pytest.mark.parametrize("value", ["80", "65536", "four", "-1", "4200.0", "²"])
def test_a_port_that_is_none_is_refused_in_one_sentence(monkeypatch, value):
    monkeypatch.setenv(PREFECT_PORT, value)
    with pytest.raises(EnvironmentProblem, match=f"{PREFECT_PORT} is '{value}'; expected a port from 1024 to 65535"):
        port_from_environment(PREFECT_PORT)


@pytest.mark.parametrize("variable", [PREFECT_PORT, MLFLOW_PORT])
def test_up_names_a_port_in_use_its_option_and_who_has_it_before_it_starts_anything(home, monkeypatch, taken, variable):
    monkeypatch.setenv(variable, str(taken))
    with pytest.raises(EnvironmentProblem) as caught:
        up(home, RetrainConfig())
    assert f"port {taken} ({variable}) is in use by" in str(caught.value)
    assert f"set {variable} to a free port" in str(caught.value)
    assert not home.logs.exists()


def test_up_names_a_port_of_triton_in_use_before_it_starts_anything(home, taken):
    http_port, grpc_port = free_ports(2)
    ports = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": taken}
    config = validate_config({"serving": ports})
    with pytest.raises(EnvironmentProblem, match=rf"port {taken} \(serving.metrics_port\) is in use"):
        up(home, config)
    assert not home.logs.exists()


def test_a_home_in_which_nothing_runs(home):
    assert [(one.name, one.state) for one in service_states(home)] == [
        ("prefect", "stopped"),
        ("mlflow", "stopped"),
        ("triton", "stopped"),
        ("worker", "stopped"),
    ]
    assert prefect_api_url(home) is None
    assert {one.note for one in down(home)} == {"was not running"}


def test_states_are_shown_as_they_are_even_with_brackets():
    from rich.console import Console

    from flows.services import ServiceState, render_states

    console = Console(record=True, width=120)
    render_states(
        console, [ServiceState("mlflow", "stopped", note="[was] not running"), ServiceState("triton", "running")]
    )
    shown = console.export_text()
    assert "[was] not running" in shown and "triton" in shown


def test_default_ports_do_not_collide(monkeypatch):
    monkeypatch.delenv(PREFECT_PORT)
    monkeypatch.delenv(MLFLOW_PORT)
    serving = ServingSection()
    ports = [port_from_environment(PREFECT_PORT), port_from_environment(MLFLOW_PORT)]
    assert len({*ports, serving.http_port, serving.grpc_port, serving.metrics_port}) == 5
