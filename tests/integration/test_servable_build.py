"""Building the form that serves, for both engines, and serving the reference engine in a real Triton."""

import json
import os
import subprocess

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import AdapterRef, BaseModelRef
from tasks.contracts.config import ServingSection
from tasks.contracts.engine import TEMPLATE_DATE, load_engine
from tasks.contracts.errors import BuildError
from tasks.contracts.store import Store
from tasks.serving.build import build_servable
from tasks.serving.repository import publish
from tasks.serving.serving_environment import find_serving_environment
from tasks.serving.triton_client import ask, load_model
from tasks.serving.tritonserver import ensure_triton

pytestmark = pytest.mark.integration

PROMPTS = ["hello", "Return the sum of two numbers.", "def add(first, second):\n    return first + second"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny base model, and an adapter with weights large enough to change its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_base_model(folder / "base")
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    )
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return (
        BaseModelRef(base, "base", "dir:tiny"),
        AdapterRef(folder, "adapter", train_rows=1, tokens=1, final_loss=1.0, seconds=1.0),
    )


def answers(servable):
    engine = load_engine(servable.model_directory / "1", threads=1)
    return [engine.generate([{"role": "user", "content": prompt}]).text for prompt in PROMPTS]


def test_the_engines_agree_on_a_merged_adapter_and_the_adapter_matters(tiny, tmp_path):
    base, adapter = tiny
    store, log_path = Store(tmp_path / "store"), tmp_path / "build.log"
    onnx = ServingSection(engine="onnx", onnx_precision="fp32", max_new_tokens=8)
    merged = build_servable(base, adapter, onnx, store, log_path)
    plain = build_servable(base, None, onnx, store, log_path)
    assert answers(merged) != answers(plain)
    assert answers(merged) == reference_answers(base, adapter)
    settings = json.loads((merged.model_directory / "1" / "servable.json").read_text())
    assert settings["template_date"] == TEMPLATE_DATE


def reference_answers(base, adapter):
    """What peft and transformers answer in fp32, without any of our own serving code."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32), adapter.path / "adapter"
    )
    texts = []
    for prompt in PROMPTS:
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=8, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return texts


def test_a_build_that_fails_is_one_sentence_and_leaves_nothing(tiny, tmp_path):
    base, adapter = tiny
    missing = AdapterRef(tmp_path / "nowhere", "other", train_rows=1, tokens=1, final_loss=1.0, seconds=1.0)
    store = Store(tmp_path / "store")
    with pytest.raises(BuildError, match=r"tasks\.serving\.build_process failed with \w+: .*log: ") as raised:
        build_servable(base, missing, ServingSection(), store, tmp_path / "build.log")
    assert "\n" not in str(raised.value)
    assert list(store.entries("servable")) == []
    assert adapter.path.is_dir()


def test_the_transformers_engine_serves_what_it_answers_in_process(tiny, tmp_path, triton_home, triton_serving):
    needs_torch_in_the_serving_environment()
    base, adapter = tiny
    serving = triton_serving.model_copy(update={"engine": "transformers", "max_new_tokens": 8})
    servable = build_servable(base, adapter, serving, Store(tmp_path / "store"), tmp_path / "build.log")
    expected = answers(servable)
    address = ensure_triton(triton_home, serving)
    publish(servable.model_directory, triton_home.triton_repository, triton_home.triton_incoming, "reference")
    load_model(address, "reference", 120)
    assert [ask(address, "reference", prompt)["text"] for prompt in PROMPTS] == expected


def needs_torch_in_the_serving_environment():
    python = find_serving_environment().python
    found = subprocess.run([str(python), "-c", "import torch, transformers"], capture_output=True, check=False)
    if found.returncode != 0:
        reason = "the serving environment has no torch and transformers; install them with: make serving-transformers"
        if os.environ.get("LLM_RETRAIN_REQUIRE_TRITON"):
            pytest.fail(reason)
        pytest.skip(reason)
