"""The evaluation asks a real tritonserver: the answers of a process, and nothing left behind whatever happens."""

import shutil
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from google.protobuf import text_format
from servers import free_ports, skip_without_triton
from tiny_model import CONTEXT_TOKENS, make_tiny_base_model
from tiny_servables import build_onnx
from tritonclient.grpc import model_config_pb2 as pb

from tasks.contracts.artifacts import DatasetRef, ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.errors import EvaluationError, ServingError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.evaluation.generation import generate_predictions
from tasks.serving import evaluated_model
from tasks.serving.evaluated_model import evaluation_server, loaded_for_evaluation, remove_left_over
from tasks.serving.repository import evaluated_name, publish
from tasks.serving.routing import Routing, write_routing
from tasks.serving.server_record import read_record
from tasks.serving.triton_client import load_model, repository_index, unload_model
from tasks.serving.tritonserver import ensure_triton, stop_tritonserver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

QUESTION = "Write one sentence that says what this Python function does.\n\n"
TEXTS = [f"{QUESTION}def f{n}(x):\n    return x + {n} * {'x' * (n % 5)}" for n in range(18)]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """A tiny model as a Triton model directory, int8: its answers are the same bit by bit, asked alone or together."""
    hf_model = make_tiny_base_model(tmp_path_factory.mktemp("hf") / "model", hidden=128)
    return build_onnx(hf_model, tmp_path_factory.mktemp("onnx") / "int8", "int8")


class Place:
    """A home with a running Triton, and what the evaluation asks."""

    def __init__(self, folder, onnx):
        self.home, self.onnx = Home(folder / "home"), onnx
        http_port, grpc_port, metrics_port = free_ports(3)
        self.serving = ServingSection(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
        self.store = Store(self.home.store)
        self.dataset = self.rows_of(folder / "rows", TEXTS)

    @property
    def address(self):
        return ensure_triton(self.home, self.serving)

    def rows_of(self, folder, texts):
        folder.mkdir()
        rows = [[{"role": "user", "content": text}, {"role": "assistant", "content": "It adds."}] for text in texts]
        rows = ({"id": f"{n:064x}", "slice": "code", "messages": row} for n, row in enumerate(rows))
        write_jsonl(folder / "eval.jsonl", rows)
        return DatasetRef(folder, "d", len(texts), 0, len(texts), {}, f"rows in {folder}")

    def servable(self, label, change=lambda model: None):
        """Return the model with a file of its own, so that it is another one, and with a change."""

        def write(out):
            shutil.copytree(self.onnx, out / "model")
            (out / "model" / "1" / "label.txt").write_text(label)
            change(out / "model")
            return {}

        entry = self.store.produce("servable", {"label": label}, write)
        return ServableModel(entry.path, entry.digest, "onnx")

    def server(self, **settings):
        return evaluation_server(self.home, self.serving, EvaluationSection(through="server", **settings))

    def answers(self, servable, server=None, listener=lambda event: None, dataset=None):
        log = self.home.logs / "generation.log"
        return generate_predictions(servable, dataset or self.dataset, range(3), self.store, log, listener, server)

    def left(self):
        """Return what an evaluation has in the server and in the repository."""
        index = repository_index(self.address)
        held = {name for name, line in index.items() if name[:1] == "_" and line["state"] != "UNAVAILABLE"}
        return held, {path.name for path in self.home.triton_repository.glob("_*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory, onnx):
    skip_without_triton()
    place = Place(tmp_path_factory.mktemp("through-triton"), onnx)
    try:
        ensure_triton(place.home, place.serving)
        yield place
    finally:
        stop_tritonserver(place.home)


def lines_of(predictions):
    return list(read_jsonl(predictions.path / "predictions.jsonl"))


def said(lines):
    """Return the records without what is measured; numpy of another version sums likelihoods with another last bit."""
    return [
        {key: round(value, 9) if key == "reference_nats" else value for key, value in line.items() if key != "seconds"}
        for line in lines
    ]


def test_the_server_gives_the_records_of_the_process_letter_by_letter_and_keeps_nothing(place):
    servable, events = place.servable("same"), []
    in_process = place.answers(servable)
    through_server = place.answers(servable, place.server(), events.append)
    assert said(lines_of(through_server)) == said(lines_of(in_process))
    lines = lines_of(through_server)
    assert len({line["answer"] for line in lines}) > 9
    assert all(line["new_tokens"] > 0 and line["reference_nats"] > 0 for line in lines)
    assert [line["seconds"] > 0 for line in lines[:3]] == [True] * 3
    assert not any("seconds" in line for line in lines[3:])
    assert through_server.path != in_process.path, "which of them answered is part of the key"
    assert through_server.servable_bytes == in_process.servable_bytes > 0
    assert [event["event"] for event in events] == ["answer"] * 18 + ["again"] * 3
    assert place.left() == (set(), set())
    assert place.answers(servable, place.server(), events.append).path == through_server.path
    assert len(events) == 21, "and the second time nobody is asked"


def test_as_many_clients_ask_at_once_as_the_configuration_says(place, monkeypatch):
    infer, busy, most = evaluated_model.infer, set(), []

    def counted(*arguments):
        busy.add(threading.get_ident())
        most.append(len(busy))
        try:
            return infer(*arguments)
        finally:
            busy.discard(threading.get_ident())

    monkeypatch.setattr(evaluated_model, "infer", counted)
    place.answers(place.servable("several"), place.server(concurrency=3))
    assert max(most[:18]) == 3
    assert most[18:] == [1] * 3, "the second time one asks alone"


def test_a_server_that_is_killed_in_the_middle_is_an_error_and_the_next_run_answers_all(place):
    servable = place.servable("killed")

    def kill_at_the_fifth(event):
        if event.get("row") == 5:
            process = psutil.Process(read_record(place.home).pid)
            process.kill()
            process.wait(timeout=20)

    with pytest.raises(
        EvaluationError, match=r"did not answer evaluation row \d+ of 18, after \d+ answers: _evaluated-"
    ):
        place.answers(servable, place.server(), kill_at_the_fifth)
    assert not list(place.home.triton_repository.glob("_*"))
    again = place.answers(servable, place.server())
    assert said(lines_of(again)) == said(lines_of(place.answers(servable)))
    assert place.left() == (set(), set())


def test_what_a_killed_evaluation_left_is_removed_and_what_is_asked_stays(place):
    servable = place.servable("left")
    code = """
import os, signal, sys
from pathlib import Path
from tasks.contracts.artifacts import ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.home import Home
from tasks.serving.evaluated_model import loaded_for_evaluation
servable = ServableModel(Path(sys.argv[1]), sys.argv[2], "onnx")
with loaded_for_evaluation(servable, Home(Path(sys.argv[3])), ServingSection.model_validate_json(sys.argv[4]), 60):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    arguments = [str(servable.path), servable.digest, str(place.home.root), place.serving.model_dump_json()]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    name = evaluated_name(servable.digest)
    assert place.left() == ({name}, {name})
    other = place.servable("other")
    with loaded_for_evaluation(other, place.home, place.serving, 60):
        asked = evaluated_name(other.digest)
        assert place.left() == ({asked}, {asked}), "the next evaluation found it"
        remove_left_over(place.home, place.address, place.serving)
        assert place.left() == ({asked}, {asked}), "what is being asked is no left-over"
    publish(place.onnx, place.home.triton_repository, place.home.triton_incoming, name)
    load_model(place.address, name, 60)
    remove_left_over(place.home, place.address, place.serving)
    assert place.left() == (set(), set())
    publish(place.onnx, place.home.triton_repository, place.home.triton_incoming, name)
    remove_left_over(place.home, None, place.serving)
    assert place.left() == (set(), set()), "also where no Triton runs"


def test_what_does_not_unload_is_said_and_found_the_next_time(place, monkeypatch, caplog):
    servable = place.servable("does not unload")

    def refuse(*_):
        raise ServingError("injected at unloading")

    with monkeypatch.context() as patched:
        patched.setattr(evaluated_model, "unload_model", refuse)
        assert place.answers(servable, place.server()).rows == 18, "the answers are there all the same"
    name = evaluated_name(servable.digest)
    assert f"{name}, which an evaluation asked, was not taken out of the server: injected at unloading" in caplog.text
    assert place.left() == ({name}, {name})
    remove_left_over(place.home, place.address, place.serving)
    assert place.left() == (set(), set())


def test_the_champion_is_asked_where_it_is_loaded_already(place, monkeypatch):
    servable, routing = place.servable("champion"), place.home.routing_file("assistant")
    publish(servable.model_directory, place.home.triton_repository, place.home.triton_incoming, "assistant-v7")
    load_model(place.address, "assistant-v7", 60)
    write_routing(routing, Routing("assistant-v7", 7, 1, ""))
    infer, asked = evaluated_model.infer, set()
    monkeypatch.setattr(
        evaluated_model, "infer", lambda address, model, *rest: (asked.add(model), infer(address, model, *rest))[1]
    )
    try:
        answers = place.answers(servable, place.server())
        assert asked == {"assistant-v7"}
        asked.clear()
        place.answers(other := place.servable("not the champion"), place.server())
        assert asked == {evaluated_name(other.digest)}
        assert repository_index(place.address)["assistant-v7"]["state"] == "READY"
        unload_model(place.address, "assistant-v7", 60)
        asked.clear()
        with loaded_for_evaluation(servable, place.home, place.serving, 60) as ask:
            assert ask([{"role": "user", "content": TEXTS[0]}], None).text == lines_of(answers)[0]["answer"]
        assert asked == {evaluated_name(servable.digest)}, "a champion that is not loaded is loaded under another name"
    finally:
        write_routing(routing, Routing())


def broken(method):
    """Return a change to a model's code: what it does when it is asked."""

    def change(model):
        engine = model / "1" / "engine.py"
        head = "    def generate(self, messages: list[dict[str, str]], max_new_tokens: int | None = None) -> Answer:\n"
        source = engine.read_text()
        assert head in source
        engine.write_text(source.replace(head, f"{head}        {method}\n"))

    return change


def test_an_answer_of_500_is_asked_for_again_and_then_an_error(place, monkeypatch):
    monkeypatch.setattr(evaluated_model, "_PAUSE_SECONDS", 0.01)
    infer, attempts = evaluated_model.infer, []
    monkeypatch.setattr(evaluated_model, "infer", lambda *arguments: (attempts.append(1), infer(*arguments))[1])
    server = place.server(concurrency=1)
    with pytest.raises(EvaluationError, match=r"does not answer at .*: generation failed: out of luck"):
        place.answers(place.servable("500", broken("raise RuntimeError('out of luck')")), server)
    assert 3 <= len(attempts) <= 6, "each row three times, and none after the first that failed"
    flag = place.home.root / "asked-before"
    once = broken(
        f"import pathlib; flag = pathlib.Path({str(flag)!r})\n        if not flag.exists(): flag.touch(); 1 / 0"
    )
    assert place.answers(place.servable("500 once", once), server).rows == 18
    assert place.left() == (set(), set())


def test_a_row_that_the_model_refuses_is_named_and_not_asked_again(place, monkeypatch, tmp_path):
    infer, attempts = evaluated_model.infer, []
    monkeypatch.setattr(evaluated_model, "infer", lambda *arguments: (attempts.append(1), infer(*arguments))[1])
    dataset = place.rows_of(tmp_path / "long", [TEXTS[0], "xyz" * CONTEXT_TOKENS])
    with pytest.raises(EvaluationError, match=r"evaluation row 2 of 2.*leaves no room for an answer"):
        place.answers(place.servable("refuses"), place.server(concurrency=1), dataset=dataset)
    assert len(attempts) == 2
    assert place.left() == (set(), set())


def test_an_answer_that_takes_too_long_is_an_error_and_is_not_asked_for_again(place, monkeypatch):
    """Five seconds are the shortest wait that there is."""
    infer, attempts = evaluated_model.infer, []
    monkeypatch.setattr(evaluated_model, "infer", lambda *arguments: (attempts.append(1), infer(*arguments))[1])
    slow = place.servable("slow", broken("import time; time.sleep(7)"))
    with pytest.raises(EvaluationError, match=r"did not answer evaluation row 1 of 18, after 0 answers: .*timed out"):
        place.answers(slow, place.server(concurrency=1, answer_timeout_seconds=5))
    assert len(attempts) <= 2
    assert place.left() == (set(), set())


def test_a_model_that_does_not_load_is_an_error_with_its_reason_and_leaves_nothing(place):
    without_weights = place.servable("unloadable", lambda model: (model / "1" / "tokenizer.json").unlink())
    with pytest.raises(ServingError, match=r"_evaluated-[0-9a-f]{32} cannot be loaded at"):
        place.answers(without_weights, place.server())
    assert place.left() == (set(), set())


def test_a_model_that_was_built_before_models_said_more_is_asked_without_likelihoods(place, caplog):
    def as_before(model):
        config = text_format.Parse((model / "config.pbtxt").read_text(), pb.ModelConfig())
        del config.input[3:], config.output[2:]
        (model / "config.pbtxt").write_text(text_format.MessageToString(config))
        code = model / "1" / "model.py"
        source = code.read_text()
        line = '            said["new_tokens"] = str(answer.new_tokens)\n'
        assert line in source
        code.write_text(source.replace(line, "").replace("reference", "text_input_of_old"))

    old = place.servable("old", as_before)
    lines = lines_of(place.answers(old, place.server()))
    expected = lines_of(place.answers(old))
    assert [line["answer"] for line in lines] == [line["answer"] for line in expected]
    assert all(line["new_tokens"] is None and "reference_nats" not in line for line in lines)
    assert "was built before models said how likely a reference is: perplexity will be left out" in caplog.text


def test_the_name_of_an_evaluated_model_can_be_no_stable_name_and_no_versions():
    with pytest.raises(ValueError, match="lowercase"):
        ServingSection(model_name=evaluated_name("0" * 64))
