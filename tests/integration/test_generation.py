"""Answers of many rows together are those that are served one by one, and likelihoods are the model's own."""

import json
import shutil
from dataclasses import astuple
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import make_tiny_base_model
from tiny_servables import build_onnx, complete_servable

from tasks.contracts.engine import import_served_module, load_engine
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.evaluation import generation_process
from tasks.serving.repository import copy_engine

pytestmark = pytest.mark.integration

QUESTION = "Write one sentence that says what this Python function does.\n\n"
REFERENCES = ["Return the sum of two numbers.", "Open the file and read all of its lines.", ""]


def ask(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def hf_model(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("hf") / "model", hidden=128)


@pytest.fixture(scope="module")
def int8(hf_model, tmp_path_factory):
    return build_onnx(hf_model, tmp_path_factory.mktemp("onnx") / "int8", "int8") / "1"


@pytest.fixture(scope="module")
def fp32(hf_model, tmp_path_factory):
    return build_onnx(hf_model, tmp_path_factory.mktemp("onnx") / "fp32", "fp32") / "1"


@pytest.fixture(scope="module")
def transformers(hf_model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("transformers")
    copy_engine("transformers", directory / "1")
    shutil.copytree(hf_model, directory / "1" / "hf")
    return complete_servable(hf_model, directory, "transformers") / "1"


@pytest.mark.parametrize("precision", ["int8", "fp32", "transformers"])
def test_many_conversations_are_answered_as_each_is_alone(precision, request):
    """More than there are slots; lengths of all kinds, twins, beginnings of others, and one with another limit."""
    engine = load_engine(request.getfixturevalue(precision))
    words = ["def add(first, second):", "return first + second", "for line in lines:", "你好", "self.values"]
    texts = [QUESTION + " ".join(words[n % 5 : n % 5 + 1 + n % 3] * (1 + n % 7)) for n in range(36)]
    conversations = [ask(text) for text in [*texts, texts[3], "hello", QUESTION, QUESTION + "x"]]
    found = {position: answer for position, answer, likelihood in engine.generate_many(conversations)}
    assert sorted(found) == list(range(len(conversations)))
    for position, messages in enumerate(conversations):
        assert astuple(found[position]) == astuple(engine.generate(messages))
    assert len({answer.text for answer in found.values()}) > 20


def test_answers_come_as_they_are_done_and_with_references_too(int8):
    engine = load_engine(int8)
    conversations = [ask(QUESTION + text) for text in ("a", "b", "c")]
    found = list(engine.generate_many(conversations, REFERENCES))
    assert sorted(position for position, _, _ in found) == [0, 1, 2]
    for position, answer, likelihood in found:
        assert astuple(answer) == astuple(engine.generate(conversations[position]))
        assert likelihood.tokens == len(engine._format.encode_answer(conversations[position], REFERENCES[position]))


def test_what_prompts_have_in_common_is_read_once_without_changing_a_bit(int8):
    """Lengths around a tile of 128 rows, where a row that is alone is computed by another kernel."""
    batch, decoder = (import_served_module(int8, name) for name in ("batch", "decoder"))
    model = decoder.Decoder(int8 / "genai")
    generator = np.random.default_rng(0)
    common = generator.integers(3, 400, 200).tolist()
    lengths = [
        (60, 100),
        (60, 61),
        (2, 129),
        (60, 129),
        (60, 188),
        (60, 189),
        (128, 130),
        (129, 131),
        (129, 257),
        (40, 257),
    ]
    prompts = batch.Prompts(model, 300)
    last, reused = [], 0
    for shared, length in lengths:
        prompt = common[:shared] + generator.integers(3, 400, length - shared).tolist()
        reused += batch.reusable(last, prompt)
        last = prompt
        fresh = model.step([prompt], [0], cache := model.cache(1, 300))[0]
        assert (prompts.read(prompt) == fresh).all(), (shared, length)
        for name, buffer in cache.buffers.items():
            assert (prompts.cache.buffers[name][:, :, :length] == buffer[:, :, :length]).all(), (shared, length)
    assert reused > 300


@pytest.mark.parametrize("engine", ["fp32", "transformers"])
def test_the_likelihood_of_a_reference_is_what_transformers_says(engine, hf_model, request):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = load_engine(request.getfixturevalue(engine))
    model = AutoModelForCausalLM.from_pretrained(hf_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(hf_model)
    conversations = [ask(QUESTION + text) for text in ("a", "bb", "ccc")]
    for position, _, likelihood in engine.generate_many(conversations, REFERENCES):
        prompt = tokenizer.apply_chat_template(conversations[position], add_generation_prompt=True, return_dict=False)
        target = [*tokenizer.encode(REFERENCES[position], add_special_tokens=False), tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        nats = -sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(target))
        assert likelihood.tokens == len(target)
        assert likelihood.nats == pytest.approx(nats, rel=1e-3)


def test_a_reference_that_the_context_has_no_room_for_is_scored_as_far_as_it_fits(int8):
    engine = load_engine(int8)
    room = engine._format.context_tokens - len(engine._format.encode(ask(QUESTION))[0])
    ((_, _, likelihood),) = engine.generate_many([ask(QUESTION)], ["return first + second " * 200])
    assert likelihood.tokens == room
    assert np.isfinite(likelihood.nats)


def rows_of(texts):
    return [
        {"id": f"{n:064x}", "slice": "code", "messages": [*ask(text), {"role": "assistant", "content": f"It is {n}."}]}
        for n, text in enumerate(texts)
    ]


def generated(version, tmp_path, rows, asked_again=(0, 1)):
    write_jsonl(tmp_path / "rows.jsonl", rows)
    spec = {
        "version_directory": str(version),
        "rows": str(tmp_path / "rows.jsonl"),
        "out": str(tmp_path / "out.jsonl"),
        "asked_again": list(asked_again),
    }
    generation_process.run(spec)
    return list(read_jsonl(tmp_path / "out.jsonl"))


def test_predictions_stand_in_the_order_of_the_rows_and_some_were_asked_again(int8, tmp_path):
    rows = rows_of([f"{QUESTION}{n}" for n in range(5)])
    engine = load_engine(int8)
    lines = generated(int8, tmp_path, rows, asked_again=(1, 3))
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["answer"] for line in lines] == [engine.generate(row["messages"][:-1]).text for row in rows]
    assert [n for n, line in enumerate(lines) if "again" in line] == [1, 3]
    assert all(lines[n]["again"] == lines[n]["answer"] and lines[n]["seconds"] > 0 for n in (1, 3))
    assert all(line["slice"] == "code" and line["reference_nats"] > 0 for line in lines)


def test_the_engine_of_an_older_version_is_asked_row_by_row(tmp_path, monkeypatch):
    """It has its own code, from before engines answered many rows."""
    answer, limits = SimpleNamespace(text="Yes.", new_tokens=2, finish_reason="stop"), []
    old = SimpleNamespace(generate=lambda messages, max_new_tokens=None: limits.append(max_new_tokens) or answer)
    monkeypatch.setattr(generation_process, "load_engine", lambda directory: old)
    lines = generated(tmp_path, tmp_path, rows_of(["one", "two"]))
    assert [line["answer"] for line in lines] == ["Yes.", "Yes."]
    assert limits == [None] * 4, "as it is served"
    assert "reference_nats" not in json.dumps(lines)
