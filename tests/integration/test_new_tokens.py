"""Symbols that become tokens of their own: learned, saved with the tokenizer, generated and spelled by the engines."""

import json

import pytest
from tiny_builds import answer_of_peft, build_here
from tiny_training import dataset_of, row, section, tiny_base, train_here

from tasks.training.adapter import TrainingJob

pytestmark = pytest.mark.integration

KNOWN, NEW = "Return", ("⊕⊗", "ཀྲ")
ANSWER = f"Return {NEW[0]} of two {NEW[1]}."
QUESTION = [{"role": "user", "content": f"Say {NEW[1]} 3."}]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tiny"), tied=request.param)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return dataset_of(tmp_path_factory.mktemp("rows"), [row(n, f"Say {NEW[1]} {n}.", ANSWER) for n in range(16)])


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "dora"])
def test_new_tokens_are_learned_and_every_engine_writes_them(method, base, dataset, tmp_path, monkeypatch):
    rate, precision = (3e-3, "fp32") if method == "full" else (1e-2, "auto" if method == "qlora" else "fp32")
    training = section(
        method=method, rank=8, epochs=20, new_tokens=(KNOWN, *NEW), learning_rate=rate, precision=precision
    )
    adapter = tmp_path / "adapter"
    train_here(TrainingJob(base, dataset, training), adapter, monkeypatch)
    vocabulary = json.loads((base.path / "tokenizer.json").read_text())["model"]["vocab"]
    assert KNOWN in vocabulary, "it is a token already and must not be added again"
    added = {each["content"] for each in json.loads((adapter / "tokenizer.json").read_text())["added_tokens"]}
    assert added >= set(NEW)
    assert KNOWN not in added
    assert answer_of_peft(base, adapter, method, QUESTION) == ANSWER
    for engine in ("transformers", "onnx"):
        answer = build_here(base, adapter, engine, tmp_path / engine).generate(QUESTION)
        assert answer.text == ANSWER, engine
        assert answer.new_tokens == tokens_of(adapter, ANSWER)


def tokens_of(adapter, text):
    """Return how many tokens a text has, having seen that each new symbol is one of them."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(adapter)(text, add_special_tokens=False)["input_ids"]
    spelled = AutoTokenizer.from_pretrained(adapter).convert_ids_to_tokens(ids)
    assert [each for each in spelled if each in NEW] == list(NEW)
    return len(ids)
