"""A real tritonserver with tiny models: what is asked in-process, of a model, and of the router is the same."""

import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import psutil
import pytest
from servers import free_ports, skip_without_triton
from tiny_model import CONTEXT_TOKENS, make_tiny_base_model
from tiny_servables import build_onnx, complete_servable

from tasks.contracts.config import ServingSection
from tasks.contracts.engine import load_engine
from tasks.contracts.errors import EnvironmentProblem, ServingError
from tasks.contracts.home import Home
from tasks.serving.repository import copy_engine, publish
from tasks.serving.routing import Routing, read_routing, write_routing
from tasks.serving.server_record import read_record
from tasks.serving.triton_client import (
    TritonAddress,
    ask,
    is_model_ready,
    load_model,
    repository_index,
    unload_model,
    wait_ready,
)
from tasks.serving.tritonserver import (
    ensure_triton,
    running_triton,
    start_tritonserver,
    stop_tritonserver,
)

pytestmark = pytest.mark.integration

PROMPTS = [
    "Write one sentence that says what this Python function does.",
    "hello",
    "def add(first, second):\n    return first + second",
    "你好",
]


@pytest.fixture(scope="module")
def hf_models(tmp_path_factory):
    """Two tiny models with the same tokenizer and other answers."""
    root = tmp_path_factory.mktemp("hf")
    return [make_tiny_base_model(root / f"seed-{seed}", seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def servables(hf_models, tmp_path_factory):
    """The two models as complete Triton model directories for the onnx engine, int8."""
    return [build_onnx(model, tmp_path_factory.mktemp("servable") / "model", "int8") for model in hf_models]


@pytest.fixture(scope="module")
def expected(servables):
    """Answers of the two models in this process."""
    return [answers_of(load_engine(servable / "1", threads=1)) for servable in servables]


@pytest.fixture(scope="module")
def served(servables, tmp_path_factory):
    """One running server with both models loaded and the first as champion."""
    skip_without_triton()
    home = Home(tmp_path_factory.mktemp("served"))
    http_port, grpc_port, metrics_port = free_ports(3)
    serving = ServingSection(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
    try:
        address = ensure_triton(home, serving)
        for number, servable in enumerate(servables, start=1):
            publish(servable, home.triton_repository, home.triton_incoming, f"assistant-v{number}")
            load_model(address, f"assistant-v{number}", 60)
        route_to(home, 1)
        yield home, address
    finally:
        stop_tritonserver(home)


def answers_of(engine):
    return [engine.generate([{"role": "user", "content": prompt}]).text for prompt in PROMPTS]


def route_to(home, version):
    path = home.routing_file("assistant")
    generation = read_routing(path).generation + 1
    write_routing(path, Routing(f"assistant-v{version}", version, generation, "2030-01-01T00:00:00+00:00"))


def post(address, model, body):
    """Ask as curl does; return the status and the body."""
    request = urllib.request.Request(f"http://{address.http}/v2/models/{model}/generate", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def logged(home):
    return [json.loads(line) for line in home.request_log("assistant").read_text(encoding="utf-8").splitlines()]


def test_two_engines_on_the_same_weights_give_the_same_greedy_answers(hf_models, tmp_path):
    """fp32 in both, so only the code around the weights (template, tokens, stop rules) could make a difference."""
    onnx = load_engine(build_onnx(hf_models[0], tmp_path / "onnx", "fp32") / "1", threads=1)
    version = tmp_path / "transformers" / "1"
    copy_engine("transformers", version)
    shutil.copytree(hf_models[0], version / "hf")
    reference = load_engine(complete_servable(hf_models[0], version.parent, "transformers") / "1", threads=1)

    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        assert astuple(onnx.generate(messages)) == astuple(reference.generate(messages))
        assert astuple(onnx.generate(messages, 3)) == astuple(reference.generate(messages, 3))


@pytest.mark.parametrize("engine", ["onnx", "transformers"])
def test_an_answer_ends_before_the_first_stop_token(engine, hf_models, servables, tmp_path):
    """A token that the model does write is declared a stop token: the answer must end there and say so."""
    directory = tmp_path / "model"
    if engine == "onnx":
        shutil.copytree(servables[0], directory)
    else:
        copy_engine("transformers", directory / "1")
        shutil.copytree(hf_models[0], directory / "1" / "hf")
        complete_servable(hf_models[0], directory, "transformers")
    messages = [{"role": "user", "content": PROMPTS[0]}]
    whole = load_engine(directory / "1", threads=1).generate(messages)
    assert (whole.finish_reason, whole.new_tokens) == ("length", 12)

    settings = json.loads((directory / "1" / "servable.json").read_text())
    every_token = list(range(json.loads((hf_models[0] / "config.json").read_text())["vocab_size"]))
    (directory / "1" / "servable.json").write_text(json.dumps(settings | {"stop_token_ids": every_token}))
    nothing = load_engine(directory / "1", threads=1).generate(messages)

    assert (nothing.text, nothing.new_tokens, nothing.finish_reason) == ("", 0, "stop")


def test_triton_gives_the_answers_that_the_engine_gives_in_process(served, expected):
    _, address = served

    for number in (1, 2):
        answers = [ask(address, f"assistant-v{number}", prompt)["text"] for prompt in PROMPTS]
        assert answers == expected[number - 1]
    assert expected[0] != expected[1]


def test_a_conversation_and_a_limit_reach_the_engine(served, servables):
    _, address = served
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "add"},
    ]
    answer = load_engine(servables[0] / "1", threads=1).generate(conversation, 3)

    assert ask(address, "assistant", conversation, max_tokens=3)["text"] == answer.text
    assert ask(address, "assistant-v1", conversation, max_tokens=3)["text"] == answer.text


def test_the_router_says_who_answered_and_logs_question_and_answer(served, expected):
    home, address = served
    route_to(home, 1)

    status, body = post(address, "assistant", {"id": "request-7", "text_input": PROMPTS[0]})

    assert status == 200
    assert (body["text_output"], body["served_by"]) == (expected[0][0], "assistant-v1")
    record = logged(home)[-1]
    assert record["id"] == "request-7"
    assert record["served_by"] == "assistant-v1"
    assert record["messages"] == [{"role": "user", "content": PROMPTS[0]}]
    assert record["answer"] == expected[0][0]
    assert record["latency_ms"] > 0
    assert set(record) == {"time", "id", "served_by", "messages", "answer", "latency_ms"}


@pytest.mark.parametrize("model", ["assistant", "assistant-v1"])
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "exactly one of text_input and messages is needed, neither given"),
        ({"text_input": "a", "messages": "[]"}, "exactly one of text_input and messages is needed, both given"),
        ({"messages": "hello"}, "messages is not JSON"),
        ({"text_input": "a", "max_tokens": 5}, "unknown field 'max_tokens'"),
        ({"text_input": "a", "sampling_parameters": '{"temperature": 1}'}, "only max_tokens"),
        (
            {"text_input": "xyz" * CONTEXT_TOKENS},
            f"leaves no room for an answer in the model's context of {CONTEXT_TOKENS}",
        ),
    ],
    ids=["nothing", "both", "no JSON", "misplaced limit", "temperature", "too long"],
)
def test_a_bad_request_gets_status_400_and_one_sentence(served, model, body, sentence):
    home, address = served

    status, answer = post(address, model, body)

    assert status == 400
    assert sentence in answer["error"]
    assert "\n" not in answer["error"]
    if model == "assistant":
        assert sentence in logged(home)[-1]["error"]


def test_bad_requests_do_not_hurt_good_ones_that_come_at_the_same_time(served, expected):
    home, address = served
    route_to(home, 1)
    bodies = [{"text_input": PROMPTS[1]}, {"messages": "broken"}] * 12

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda body: post(address, "assistant", body), bodies))

    assert [status for status, _ in answers] == [200, 400] * 12
    assert {body["text_output"] for status, body in answers if status == 200} == {expected[0][1]}


def test_a_client_that_asks_in_a_loop_sees_switches_and_no_error(served, expected):
    """Four switches; the model that no longer answers is unloaded while requests are under way."""
    home, address = served
    route_to(home, 1)
    done, answers = threading.Event(), []

    def ask_in_a_loop():
        while not done.is_set():
            answers.append(ask(address, "assistant", PROMPTS[0]))

    with ThreadPoolExecutor(3) as clients:
        running = [clients.submit(ask_in_a_loop) for _ in range(3)]
        try:
            for new, old in [(2, 1), (1, 2)] * 2:
                load_model(address, f"assistant-v{new}", 60)
                route_to(home, new)
                unload_model(address, f"assistant-v{old}", 60)
                asked = len(answers)
                while len(answers) < asked + 3 and not any(client.done() for client in running):
                    time.sleep(0.01)
        finally:
            done.set()
        for client in running:
            client.result()

    assert {answer["served_by"] for answer in answers} == {"assistant-v1", "assistant-v2"}
    right = {"assistant-v1": expected[0][0], "assistant-v2": expected[1][0]}
    assert all(answer["text"] == right[answer["served_by"]] for answer in answers)
    load_model(address, "assistant-v2", 60)


def test_a_champion_unloaded_after_the_router_read_its_table_is_replaced_within_the_request(served, expected):
    """The new table gets the old one's size and time stamp, so the router learns of it only from the failed call."""
    home, address = served
    table = home.routing_file("assistant")
    route_to(home, 1)
    assert {ask(address, "assistant", "hello")["served_by"] for _ in range(8)} == {"assistant-v1"}
    before = table.stat()
    with table.open("r+") as file:
        content = file.read().replace("assistant-v1", "assistant-v2")
        file.seek(0)
        file.write(content)
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    try:
        assert ask(address, "assistant", "hello")["served_by"] == "assistant-v1"
        unload_model(address, "assistant-v1", 60)
        answers = [ask(address, "assistant", PROMPTS[0]) for _ in range(8)]
    finally:
        load_model(address, "assistant-v1", 60)
        route_to(home, 1)

    assert {(answer["served_by"], answer["text"]) for answer in answers} == {("assistant-v2", expected[1][0])}


def test_an_unreadable_routing_table_leaves_the_stable_name_answering(served):
    home, address = served
    route_to(home, 1)
    # Both instances of the router must have read the good table, so both must be busy at once.
    with ThreadPoolExecutor(8) as clients:
        assert {a["served_by"] for a in clients.map(lambda _: ask(address, "assistant", "hello"), range(32))} == {
            "assistant-v1"
        }
    home.routing_file("assistant").write_text("{")
    try:
        assert {ask(address, "assistant", "hello")["served_by"] for _ in range(8)} == {"assistant-v1"}
        assert "assistant-v1 goes on answering" in (home.logs / "triton.log").read_text()
    finally:
        home.routing_file("assistant").unlink()
        route_to(home, 1)


def test_an_answer_is_returned_even_if_it_cannot_be_logged(served, expected):
    home, address = served
    route_to(home, 1)
    log = home.request_log("assistant")
    aside = log.rename(log.with_suffix(".aside"))
    log.mkdir()
    try:
        status, body = post(address, "assistant", {"id": "unlogged-1", "text_input": PROMPTS[0]})
    finally:
        log.rmdir()
        aside.rename(log)

    assert (status, body["text_output"]) == (200, expected[0][0])
    assert "request unlogged-1 is not in" in (home.logs / "triton.log").read_text()


def test_a_model_that_does_not_load_is_named_with_its_reason_and_the_champion_goes_on(served, servables, tmp_path):
    home, address = served
    route_to(home, 1)
    broken = shutil.copytree(servables[0], tmp_path / "broken")
    (broken / "1" / "genai" / "model.onnx").write_bytes(b"no model")
    publish(broken, home.triton_repository, home.triton_incoming, "assistant-v9")

    with pytest.raises(ServingError) as caught:
        load_model(address, "assistant-v9", 60)

    assert f"assistant-v9 cannot be loaded at {address.http}" in str(caught.value)
    assert "model.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ServingError, match=r"assistant-v9 does not load at .*model\.onnx"):
        wait_ready(address, "assistant-v9", 10)
    assert repository_index(address)["assistant-v9"]["state"] == "UNAVAILABLE"
    assert ask(address, "assistant", "hello")["served_by"] == "assistant-v1"


def test_models_cannot_be_loaded_without_the_token_of_this_server(served):
    _, address = served
    stranger = TritonAddress(address.http_port, address.grpc_port, address.metrics_port)

    with pytest.raises(ServingError, match="restricted"):
        load_model(stranger, "assistant-v1", 10)
    with pytest.raises(ServingError, match="restricted"):
        unload_model(stranger, "assistant-v1", 10)
    assert is_model_ready(stranger, "assistant-v1")


def test_triton_listens_on_the_loopback_only_and_inherits_no_python_paths_and_no_secrets(served):
    home, address = served
    process = psutil.Process(read_record(home).pid)

    sockets = [connection for connection in process.net_connections() if connection.status == psutil.CONN_LISTEN]
    # gRPC spells 127.0.0.1 as an IPv6 address.
    listening = {(connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port) for connection in sockets}
    assert listening == {("127.0.0.1", port) for port in (address.http_port, address.grpc_port, address.metrics_port)}
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "LLM_RETRAIN_HOME", "PYTEST_CURRENT_TEST"} & set(process.environ())


def test_a_server_that_is_running_is_found_and_not_started_twice(served):
    home, address = served
    serving = ServingSection(
        http_port=address.http_port, grpc_port=address.grpc_port, metrics_port=address.metrics_port
    )
    pid = read_record(home).pid

    assert ensure_triton(home, serving) == address
    assert start_tritonserver(home, serving) == pid
    with pytest.raises(EnvironmentProblem, match=rf"listens on port {address.http_port}.*serving\.http_port is 65000"):
        ensure_triton(home, serving.model_copy(update={"http_port": 65_000}))


def test_before_the_first_promotion_the_router_says_so_and_after_a_crash_a_restart_serves_again(
    triton_home, triton_serving, servables, expected
):
    address = ensure_triton(triton_home, triton_serving)
    assert post(address, "assistant", {"text_input": "a"})[1] == {"error": "assistant has no champion yet"}
    publish(servables[0], triton_home.triton_repository, triton_home.triton_incoming, "assistant-v1")
    load_model(address, "assistant-v1", 60)
    route_to(triton_home, 1)
    assert ask(address, "assistant", PROMPTS[0])["text"] == expected[0][0]

    crashed = psutil.Process(read_record(triton_home).pid)
    stubs = crashed.children(recursive=True)
    for stub in stubs:
        stub.suspend()  # or they may end by themselves, sooner or later
    os.kill(crashed.pid, signal.SIGKILL)
    psutil.wait_procs([crashed], timeout=20)
    assert running_triton(triton_home) is None

    address = ensure_triton(triton_home, triton_serving)
    assert len(stubs) == 3
    assert not any(stub.is_running() for stub in stubs)
    answer = ask(address, "assistant", PROMPTS[0])
    assert (answer["text"], answer["served_by"]) == (expected[0][0], "assistant-v1")
    assert stop_tritonserver(triton_home)
    assert running_triton(triton_home) is None
    assert not stop_tritonserver(triton_home)
    with pytest.raises(ServingError, match=f"assistant does not answer at {address.http}"):
        ask(address, "assistant", "hello", timeout_seconds=5)


def test_a_champion_that_does_not_load_at_a_restart_is_logged_and_the_server_can_be_repaired(
    triton_home, triton_serving, servables, tmp_path, caplog
):
    broken = shutil.copytree(servables[0], tmp_path / "broken")
    (broken / "1" / "servable.json").unlink()
    publish(broken, triton_home.triton_repository, triton_home.triton_incoming, "assistant-v2")
    publish(servables[0], triton_home.triton_repository, triton_home.triton_incoming, "assistant-v1")
    route_to(triton_home, 2)

    address = ensure_triton(triton_home, triton_serving)

    assert "assistant-v2 did not load: " in caplog.text
    assert "servable.json" in caplog.text
    load_model(address, "assistant-v1", 60)
    route_to(triton_home, 1)
    assert ask(address, "assistant", "hello")["served_by"] == "assistant-v1"


def test_a_server_whose_record_was_lost_is_no_stranger_on_its_own_port(triton_home, triton_serving):
    """A process was killed after it had started the server and before it wrote that down."""
    ensure_triton(triton_home, triton_serving)
    lost = psutil.Process(read_record(triton_home).pid)
    (triton_home.pids / "triton.pid").unlink()

    address = ensure_triton(triton_home, triton_serving)

    assert not lost.is_running() or lost.status() == psutil.STATUS_ZOMBIE
    assert read_record(triton_home).pid != lost.pid
    assert is_model_ready(address, "assistant")


@pytest.mark.parametrize("key", ["http_port", "grpc_port", "metrics_port"])
def test_a_port_in_use_is_named_with_its_config_key_and_nothing_is_started(triton_home, triton_serving, key):
    port = getattr(triton_serving, key)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(EnvironmentProblem) as caught:
        start_tritonserver(triton_home, triton_serving)

    assert f"port {port} (serving.{key}) is in use by " in str(caught.value)
    assert read_record(triton_home) is None


def test_a_server_that_dies_at_the_start_is_an_error_with_the_end_of_its_log(triton_home, triton_serving, monkeypatch):
    """Both HTTP and gRPC on one port: the check before the start cannot see it, the server can."""
    clash = triton_serving.model_copy(update={"grpc_port": triton_serving.http_port})

    with pytest.raises(ServingError, match=r"Triton ended with code \d+: .*(address|bind|port).*triton\.log"):
        start_tritonserver(triton_home, clash)

    assert running_triton(triton_home) is None
