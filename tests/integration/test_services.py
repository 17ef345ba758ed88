"""`up` and `down` with the real servers: everything answers, the worker executes, and nothing is left behind."""

import os
import sqlite3
import time

import httpx
import psutil
import pytest
from prefect_under_test import PrefectApi
from servers import free_ports
from tiny_model import make_tiny_base_model

from flows.services import down, prefect_api_url, service_states, up
from flows.services.daemon import running_daemon
from flows.services.registration import WORK_POOL
from tasks.contracts.config import RetrainConfig, validate_config
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.serving.tritonserver import why_triton_cannot_run
from tasks.training.adapter import unfinished_trainings
from tasks.training.loop.checkpoints import checkpoints_in

pytestmark = pytest.mark.integration

NAMES = ["prefect", "mlflow", "triton", "worker"]
TRITON = "unavailable" if why_triton_cannot_run() else "running"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def settings():
    http_port, grpc_port, metrics_port = free_ports(3)
    serving = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    return validate_config({"serving": serving, "data": {"train_rows": 40}})


@pytest.fixture(scope="module")
def services(tmp_path_factory, settings):
    """The home of services that run, what `up` said of them, and a client of the Prefect server."""
    home = Home(tmp_path_factory.mktemp("services"))
    prefect_port, mlflow_port = free_ports(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_RETRAIN_HOME", str(home.root))
        patch.setenv("LLM_RETRAIN_PREFECT_PORT", str(prefect_port))
        patch.setenv("LLM_RETRAIN_MLFLOW_PORT", str(mlflow_port))
        patch.delenv("PREFECT_API_URL", raising=False)
        try:
            states = up(home, settings)
            with PrefectApi(prefect_port) as api:
                yield home, {state.name: state for state in states}, api
        finally:
            down(home)


def ask(api, method, path, body=None):
    answer = api.request(method, path, json=body)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def wait_for(question, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := question()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
    return found


def test_every_service_is_running_where_it_says(services):
    home, states, api = services
    assert list(states) == NAMES
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(NAMES, "running") | {"triton": TRITON}
    assert prefect_api_url(home) == str(api.base_url).rstrip("/")
    assert ask(api, "GET", "/health") is True
    assert httpx.get(f"{states['mlflow'].address}/health", trust_env=False).text == "OK"
    if TRITON == "running":
        assert httpx.get(f"{states['triton'].address}/v2/health/ready", trust_env=False).is_success
    again = {state.name: (state.state, state.pid) for state in service_states(home)}
    assert again["worker"] == ("running", states["worker"].pid)
    assert again["prefect"] == ("running", states["prefect"].pid)


def test_a_web_page_of_somebody_else_may_not_use_the_prefect_server(services):
    """It could start a run, and with it a command. Its browser asks first, and must not be told that it may."""
    _, states, api = services
    ask_first = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for origin, allowed in (("http://evil.example", None), (states["prefect"].address, states["prefect"].address)):
        told = api.options("/flow_runs/", headers={"Origin": origin, **ask_first})
        assert told.headers.get("access-control-allow-origin") == allowed


def test_servers_listen_on_the_loopback_address_only(services):
    _, states, _ = services
    for name in ("prefect", "mlflow"):
        leader = psutil.Process(states[name].pid)
        family = [leader, *leader.children(recursive=True)]
        listening = [c.laddr for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening and all(address.ip == "127.0.0.1" for address in listening), (name, listening)


def test_eight_deployments_are_ready_and_their_form_holds_the_config(services):
    _, _, api = services
    deployments = ask(api, "POST", "/deployments/filter", {})
    assert sorted(one["entrypoint"].rpartition(".")[2] + "/" + one["name"] for one in deployments) == [
        "approve/by-hand",
        "monitor/every-15-minutes",
        "promote/by-hand",
        "retrain/by-hand",
        "retrain/nightly",
        "retrain/on-drift",
        "rollback/by-hand",
        "sweep/by-hand",
    ]
    assert {one["status"] for one in deployments} == {"READY"}
    by_hand = ask(api, "GET", "/deployments/name/retrain/by-hand")
    schema = by_hand["parameter_openapi_schema"]
    assert set(schema["properties"]) == {"config", "reason", "like_champion"}
    assert set(schema["properties"]["config"]["default"]) == set(RetrainConfig.model_fields)
    assert "rank" in schema["definitions"]["TrainingSection"]["properties"]


def test_deployments_use_the_settings_that_up_was_given(services, settings):
    _, _, api = services
    by_hand = ask(api, "GET", "/deployments/name/retrain/by-hand")
    assert validate_config(by_hand["parameters"]["config"]) == settings
    monitor = ask(api, "GET", "/deployments/name/monitor/every-15-minutes")
    assert set(monitor["parameters"]["config"]) == {"serving"}


def test_the_server_schedules_the_night_and_the_quarter_hours(services):
    """Prefect's scheduler writes its errors to the server's log only: see that there are runs."""
    _, _, api = services
    names = {"retrain/nightly", "monitor/every-15-minutes"}
    wanted = {ask(api, "GET", f"/deployments/name/{name}")["id"] for name in names}
    filters = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    assert wait_for(lambda: wanted <= {run["deployment_id"] for run in ask(api, "POST", "/flow_runs/filter", filters)})


def test_the_worker_executes_a_run_that_is_started_through_the_api(services):
    """The monitor finds the worker's home (without a champion there), so the worker passed its environment on."""
    home, _, api = services
    monitor = ask(api, "GET", "/deployments/name/monitor/every-15-minutes")
    body = {"parameters": {"config": {"window_requests": 50}}, "state": {"type": "SCHEDULED"}}
    run = ask(api, "POST", f"/deployments/{monitor['id']}/create_flow_run", body)
    ended = wait_for(lambda: (r := ask(api, "GET", f"/flow_runs/{run['id']}"))["state_type"] in FINAL and r, 120)
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "No champion")
    assert ended["parameters"]["config"]["window_requests"] == 50
    assert home.mlflow_database.exists()


def test_a_training_that_is_cancelled_in_the_ui_saves_and_ends(services, settings, tmp_path):
    """What the button Cancel does; the worker gives a run 30 seconds, then it kills."""
    home, _, api = services
    turns = ({"prompt": f"Say number {n}.", "completion": f"It is number {n * n}."} for n in range(24))
    write_jsonl(tmp_path / "rows.jsonl", turns)
    config = {
        "base_model": {"source": f"dir:{make_tiny_base_model(tmp_path / 'tiny')}"},
        "data": {
            "sources": [{"kind": "files", "path": str(tmp_path / "rows.jsonl")}],
            "near_duplicates": 0,
            "train_rows": 16,
            "eval_rows": 4,
        },
        "gate": {"min_examples": 4},
        "serving": settings.serving.model_dump(mode="json"),
        "training": {"epochs": 5_000, "batch_rows": 4, "device": "cpu", "checkpoint_seconds": 1},
    }
    by_hand = ask(api, "GET", "/deployments/name/retrain/by-hand")
    body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
    run = ask(api, "POST", f"/deployments/{by_hand['id']}/create_flow_run", body)
    state = lambda: ask(api, "GET", f"/flow_runs/{run['id']}")["state"]  # noqa: E731
    saved = lambda: [step for one in unfinished_trainings(Store(home.store)) for step in checkpoints_in(one)]  # noqa: E731
    wait_for(lambda: saved() or (state()["type"] in FINAL and pytest.fail(str(state()))), 120)
    (training,) = training_processes(home)
    asked = time.monotonic()
    ask(api, "POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    wait_for(lambda: state()["type"] in FINAL, 90)
    assert state()["type"] == "CANCELLED" and time.monotonic() - asked < 60
    assert not training.is_running() and training_processes(home) == []
    newest = int(saved()[0].name.removeprefix("step-"))
    assert any(f"step {newest} is kept" in line for line in log_lines(api, run)), log_lines(api, run)


def log_lines(api, run):
    """What the run's page shows."""
    return [
        line["message"] for line in ask(api, "POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    ]


def training_processes(home):
    worker = psutil.Process(running_daemon(home, "worker").pid)
    return [one for one in worker.children(recursive=True) if "tasks.training.process" in one.cmdline()]


def test_a_typing_mistake_in_the_form_is_refused_before_the_run(services):
    _, _, api = services
    by_hand = ask(api, "GET", "/deployments/name/retrain/by-hand")
    body = {"parameters": {"config": {"training": {"rnak": 4}}}}
    refused = api.post(f"/deployments/{by_hand['id']}/create_flow_run", json=body)
    assert refused.status_code == 409
    assert "rnak" in refused.text


def test_mlflow_shows_what_runs_write_to_the_home(services):
    """Runs write to the database and the artifact root themselves; the server serves both."""
    import mlflow

    home, states, _ = services
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home.mlflow_database}")
    experiment = client.create_experiment("shown", artifact_location=(home.mlflow_artifacts / "shown").as_uri())
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "a report", "report.md")
    address = f"{states['mlflow'].address}/get-artifact"
    shown = httpx.get(address, params={"run_uuid": run.info.run_id, "path": "report.md"}, trust_env=False, timeout=60)
    assert shown.text == "a report"


def test_a_drift_event_schedules_a_retraining_with_its_reason(services):
    _, _, api = services
    ask(api, "PATCH", f"/work_pools/{WORK_POOL}/queues/retraining", {"is_paused": True})  # it shall not train here
    on_drift = ask(api, "GET", "/deployments/name/retrain/on-drift")
    event = {
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": "llm-retrain.drift.detected",
        "resource": {"prefect.resource.id": "llm-retrain.model.assistant"},
        "payload": {"reason": "AUC 0.93", "version": 4},
        "id": "6f8b8d1c-0b5e-4a59-9c53-3a0b7ad2c111",
    }
    ask(api, "POST", "/events", [event])
    query = {"flow_runs": {"deployment_id": {"any_": [on_drift["id"]]}}}
    run = wait_for(lambda: ask(api, "POST", "/flow_runs/filter", query))[0]
    assert run["parameters"]["reason"] == "drift of llm-retrain.model.assistant (version 4): AUC 0.93"
    assert run["work_queue_name"] == "retraining"


def test_up_again_starts_nothing(services, settings):
    home, states, _ = services
    again = {state.name: state for state in up(home, settings)}
    assert {name: state.pid for name, state in again.items()} == {name: state.pid for name, state in states.items()}
    started = [name for name, state in again.items() if "already running" not in state.note]
    assert started == ([] if TRITON == "running" else ["triton"])


def test_down_leaves_no_process_and_no_run_that_is_called_running(services):
    """The last test of these services: it stops them."""
    home, states, api = services
    by_hand = ask(api, "GET", "/deployments/name/retrain/by-hand")
    run = ask(api, "POST", f"/deployments/{by_hand['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    running = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}  # as a killed worker leaves it
    ask(api, "POST", f"/flow_runs/{run['id']}/set_state", running)
    leaders = [psutil.Process(state.pid) for state in states.values() if state.pid]
    family = {one for leader in leaders for one in [leader, *leader.children(recursive=True)]}
    assert len(family) >= len(leaders) == (4 if TRITON == "running" else 3)
    stopped = down(home)
    assert [state.note for state in stopped if state.name != "triton"] == ["", "", ""]
    alive = [one.pid for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert alive == []
    assert list(home.pids.glob("*.pid")) == []
    assert {state.state for state in service_states(home)} == {"stopped"}
    with sqlite3.connect(home.prefect / "prefect.db") as database:
        state = database.execute("select state_name from flow_run where name = ?", (run["name"],)).fetchone()
    assert state == ("Crashed",)


def test_what_was_started_is_stopped_again_when_one_service_fails(tmp_path, monkeypatch, settings):
    home = Home(tmp_path / "home")
    for variable, port in zip(("LLM_RETRAIN_PREFECT_PORT", "LLM_RETRAIN_MLFLOW_PORT"), free_ports(2), strict=True):
        monkeypatch.setenv(variable, str(port))
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", os.devnull)  # Triton has no part in this
    home.mlflow_database.parent.mkdir(parents=True)
    home.mlflow_database.write_bytes(b"this is no database " * 100)
    try:
        with pytest.raises(EnvironmentProblem, match="mlflow ended while it started; its log") as caught:
            up(home, settings)
        assert "file is not a database" in str(caught.value)
        assert [running_daemon(home, name) for name in ("prefect", "mlflow", "worker")] == [None, None, None]
        assert {state.state for state in service_states(home)} == {"stopped"}
    finally:
        down(home)
