"""Every method trains, saves, and comes back with the same outputs, in peft as in the engines that serve it."""

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.config import ServingSection
from tasks.contracts.engine import load_engine
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.methods import METHODS
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.serving.build import build_servable
from tasks.training.adapter import TrainingJob, train_adapter

pytestmark = pytest.mark.integration

ANSWER = "Return the sum of two numbers."
QUESTION = [{"role": "user", "content": "Say number 3."}]
RATES = {"prefix": 0.3, "prompt": 0.3, "p_tuning": 0.03, "ia3": 0.1, "full": 3e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_tiny_base_model(tmp_path_factory.mktemp("tiny"))
    return BaseModelRef(path=folder, digest="base", source="dir:tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    rows = [
        {
            "id": f"{n:064d}",
            "messages": [
                {"role": "user", "content": f"Say number {n}."},
                {"role": "assistant", "content": ANSWER},
            ],
        }
        for n in range(16)
    ]
    write_jsonl(folder / "train.jsonl", rows)
    return DatasetRef(folder, "rows", rows_read=16, train_rows=16, eval_rows=0, rejected={}, eval_digest="none")


@pytest.mark.parametrize("method", list(METHODS))
def test_what_was_trained_is_what_every_engine_of_the_method_answers(method, base, dataset, tmp_path):
    store, losses = Store(tmp_path / "store"), []
    training = TrainingSection(
        method=method,
        rank=8,
        alpha=16,
        epochs=25,
        batch_rows=4,
        virtual_tokens=8,
        learning_rate=RATES.get(method, 5e-3),
        device="cpu",
        precision="fp32",
    )
    adapter = train_adapter(
        TrainingJob(base, dataset, training), store, tmp_path / "log", lambda e: losses.append(e.get("loss"))
    )
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    expected = answer_of_peft(base, adapter, method)
    for engine in METHODS[method].engines:
        serving = ServingSection(engine=engine, onnx_precision="fp32", max_new_tokens=24)
        built = build_servable(base, adapter, serving, store, tmp_path / "log")
        assert load_engine(built.model_directory / "1").generate(QUESTION).text == expected, engine


def answer_of_peft(base, adapter, method):
    """Return what transformers and peft answer with the saved files alone, in the serving precision's reach."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    folder = adapter.path / "adapter"
    if method == "full":
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), folder)
    if method == "lora_prefix":
        model = PeftModel.from_pretrained(model.merge_and_unload(), folder / "virtual_tokens")
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.eval().generate(**prompt, max_new_tokens=24, do_sample=False)[0].tolist()
    given = prompt["input_ids"][0].tolist()
    # With embeddings in place of ids, generate returns the new tokens alone.
    answered = output[len(given) :] if output[: len(given)] == given else output
    return tokenizer.decode(answered, skip_special_tokens=True).strip()
