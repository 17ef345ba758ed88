"""A real MLflow server that is down, slow, or answers 500: runs go on, everything arrives once, promotion waits."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from loop_under_test import Loop
from mlflow_behind_faults import running_mlflow

from tasks.contracts.artifacts import DatasetRef, GateDecision
from tasks.contracts.config import RegistrySection, validate_config
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.registry import sender
from tasks.registry.connection import connect
from tasks.registry.leftovers import send_leftovers
from tasks.registry.tracking import tracked_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as proxy:
        yield proxy


@pytest.fixture
def proxy(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(sender, "_FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(sender, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(sender, "_LEAVE_SECONDS", 2.0)
    yield server
    server.heal()


@pytest.fixture
def config(proxy):
    return validate_config({"registry": {"tracking_uri": proxy.url}})


@pytest.fixture
def dataset(tmp_path):
    rows = [
        {
            "id": str(n),
            "slice": "s",
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        }
        for n in range(3)
    ]
    (tmp_path / "rows").mkdir()
    for split in ("train", "eval"):
        write_jsonl(tmp_path / "rows" / f"{split}.jsonl", rows)
    return DatasetRef(tmp_path / "rows", "a" * 64, 3, 3, 0, {}, "b" * 64)


def step(number):
    common = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "tokens_per_second"), 1.0)
    return {"event": "step", **common, "step": number, "total_steps": 60}


def curve(client, run_id, key="train/loss"):
    return [point.step for point in client.get_metric_history(run_id, key)]


@pytest.mark.parametrize("fault", ["refuse", "slow", "500 before", "500 after"])
def test_a_run_goes_on_through_an_outage_and_all_it_said_arrives_once(fault, proxy, config, dataset, home):
    decision = GateDecision("reject", "base", ("worse",))
    with tracked_run(config, home, "test", {"from": "creation"}) as run:
        for number in range(1, 21):
            run.log_training(step(number))
        run.flush_training()
        proxy.fail(fault, seconds=3.0)
        began = time.monotonic()
        for number in range(21, 41):
            run.log_training(step(number))
            time.sleep(0.02)
        run.log_dataset(dataset)
        run.log_estimate({"estimated_bytes": 5.0})
        run.log_decision(decision)
        assert time.monotonic() - began < 2, "nobody waits for MLflow"
        time.sleep(1.5)
        assert list(home.unsent.iterdir()), "kept until it is taken"
        proxy.heal()
        for number in range(41, 61):
            run.log_training(step(number))
        run.flush_training()
    found = run.client.get_run(run.run_id)
    for key in ("train/loss", "train/gradient_norm"):
        assert sorted(curve(run.client, run.run_id, key)) == list(range(1, 61))
    assert curve(run.client, run.run_id, "train/estimated_bytes") == [0]
    assert found.info.status == "FINISHED"
    assert found.data.tags["llm_retrain.verdict"] == "reject" and found.data.tags["from"] == "creation"
    assert found.data.params["training.rank"] == str(config.training.rank)
    assert len(found.inputs.dataset_inputs) == 2
    names = {each.path for each in run.client.list_artifacts(run.run_id)}
    assert names == {"config.json", "dataset.json", "decision.json"}
    assert list(home.unsent.iterdir()) == []


def test_nothing_is_begun_where_mlflow_is_down(proxy, config, home):
    proxy.fail("refuse")
    began = time.monotonic()
    with (
        pytest.raises(RegistryError, match=r"registry\.tracking_uri is .* which does not answer"),
        tracked_run(config, home, "test", {}),
    ):
        raise AssertionError("trained")
    assert time.monotonic() - began < 10


def test_a_refusal_of_the_content_is_an_error_and_not_sent_for_ever(proxy, config, home):
    with tracked_run(config, home, "test", {}) as run:
        run.flush_training()
        run.log_params({"training.rank": "another"})  # MLflow itself refuses that
        run.set_tags({"after": "1"})
        with pytest.raises(RegistryError, match=r"MLflow refused for run .*facts training\.rank"):
            run.flush_training()
    assert run.client.get_run(run.run_id).data.tags["after"] == "1"
    assert list(home.unsent.iterdir()) == []


KILLED = """
import os, sys, time
from tasks.contracts.config import validate_config
from tasks.contracts.home import Home
from tasks.registry import sender
from tasks.registry.tracking import tracked_run
sender._FLUSH_SECONDS = sender._RETRY_SECONDS = 0.05
config = validate_config({"registry": {"tracking_uri": sys.argv[1]}})
with tracked_run(config, Home.from_environment(), "test", {}) as run:
    run.flush_training()
    print(run.run_id, flush=True)
    sys.stdin.readline()
    for number in range(1, 31):
        run.log_training({"event": "step", "step": number, "loss": 1.0})
        time.sleep(0.02)
    print("told", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("fault", ["refuse", "500 after"])
def test_what_a_killed_run_could_not_say_the_next_one_says(fault, proxy, config, home):
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, proxy.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    run_id = killed.stdout.readline().strip()
    proxy.fail(fault)
    killed.stdin.write("go on\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "told\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    proxy.heal()
    with tracked_run(config, home, "the next one", {}) as run:
        pass
    assert sorted(curve(run.client, run_id)) == list(range(1, 31))
    assert run.client.get_run(run_id).info.status == "KILLED"
    assert list(home.unsent.iterdir()) == []


def test_a_run_ends_while_mlflow_hangs_and_status_sends_the_rest(proxy, config, home):
    with tracked_run(config, home, "test", {}) as run:
        run.flush_training()
        proxy.fail("slow", seconds=3.0)
        run.log_training(step(1))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    proxy.heal()
    time.sleep(3.5)  # what hung has reached MLflow by now, and nobody heard of it
    assert send_leftovers(connect(config.registry, home), config.registry, home) == 0
    assert curve(run.client, run.run_id) == [1]
    assert run.client.get_run(run.run_id).info.status == "FINISHED"


@pytest.fixture(scope="module")
def loop(tmp_path_factory, server):
    """A loop without Triton whose MLflow is the server behind the proxy."""
    folder = tmp_path_factory.mktemp("waits-for-mlflow")
    (folder / "no-serving").mkdir()
    loop = Loop(folder)
    loop.environment["LLM_RETRAIN_SERVING_ENV"] = str(folder / "no-serving")
    loop.environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"
    loop.settings["registry"] = {"tracking_uri": server.url, "wait_seconds": 4, "model_name": "waiting"}
    loop.settings_path.write_text(json.dumps(loop.settings))
    return loop


def test_promotion_waits_and_the_same_command_goes_on_without_training_again(loop, proxy):
    registry = RegistrySection.model_validate(loop.settings["registry"])
    log, trained = loop.home.logs / "training.log", threading.Event()

    def go_down_when_it_trains():
        while not log.is_file() and not trained.wait(0.05):
            pass
        proxy.fail("refuse")

    watcher = threading.Thread(target=go_down_when_it_trains)
    watcher.start()
    try:
        waited = loop.command("run")
    finally:
        trained.set()
        watcher.join()
    said = " ".join(waited.stderr.split())
    assert waited.returncode == 1, said[-3000:]
    assert "MLflow does not answer; registering waits for it" in said
    assert "run the same command again, and it goes on from here without training again" in said
    proxy.heal()
    before = (log.stat().st_mtime, sorted(path.name for path in (loop.home.store / "adapter").iterdir()))
    proxy.once = {
        "GET registered-models/alias": "500 before",
        "POST logged-models": "500 after",
        "POST model-versions/create": "500 after",
        "POST registered-models/alias": "500 after",
        "PATCH model-versions/update": "500 before",
    }
    outcome = loop.json("run", "--set", "registry.wait_seconds=60")
    assert (outcome["status"], outcome["version"]) == ("promoted", 1)
    assert (log.stat().st_mtime, sorted(path.name for path in (loop.home.store / "adapter").iterdir())) == before
    assert not proxy.once, "all of them happened"
    client = connect(registry, Home(loop.home.root))
    (version,) = client.search_model_versions("name = 'waiting'")
    assert client.get_registered_model("waiting").aliases == {"champion": "1"}
    assert version.description.startswith("promote")
    experiment = client.get_experiment_by_name("llm-retrain").experiment_id
    runs = client.search_runs(
        [experiment], "tags.`llm_retrain.kind` = 'retrain' and params.`registry.model_name` = 'waiting'"
    )
    second, first = runs
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")
    assert "run the same command again" in first.data.tags["llm_retrain.error"]
    assert first.data.tags["llm_retrain.verdict"] == second.data.tags["llm_retrain.verdict"] == "promote"
    steps = curve(client, first.info.run_id)
    assert sorted(steps) == list(range(1, len(steps) + 1)) and steps
    assert len(client.search_logged_models([experiment], filter_string=f"source_run_id = '{second.info.run_id}'")) == 1
    assert len(second.outputs.model_outputs) == 1
    assert list(loop.home.unsent.iterdir()) == []
