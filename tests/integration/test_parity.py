"""Nothing that was trained is lost on the way to the engine unseen: the step that loses it is named and refused."""

import json
import shutil

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, Form, Parity, ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.errors import BuildError
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import LookupOnlyStore, Store
from tasks.serving.build import build_servable
from tasks.serving.parity import check_parity, measure_parity

pytestmark = pytest.mark.integration

ONNX = ServingSection(engine="onnx", onnx_precision="fp32", max_new_tokens=8, parity_rows=6)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A tiny base, an adapter with weights large enough to matter, rows, and a store with the built servable."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("parity")
    base = BaseModelRef(make_tiny_base_model(folder / "base"), "base", "dir:tiny")
    store = Store(folder / "store")

    def train(out):
        torch.manual_seed(3)
        settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.path), settings)
        model.save_pretrained(out / "adapter", save_embedding_layers=False)
        return {"precision": "float32"}

    trained = store.produce("adapter", {}, train)
    adapter = AdapterRef(trained.path, trained.digest, train_rows=1, tokens=1, final_loss=1.0, seconds=1.0)
    (folder / "rows").mkdir()
    texts = [
        "hello",
        "Return the sum of two numbers.",
        "def add(first, second):",
        "add",
        "open the file",
        "read it",
        "more",
    ]
    write_jsonl(
        folder / "rows" / "eval.jsonl",
        (
            {"id": f"{n:064x}", "slice": "", "messages": [_turn("user", text), _turn("assistant", f"It is {text}.")]}
            for n, text in enumerate(texts)
        ),
    )
    dataset = DatasetRef(folder / "rows", "d", 7, train_rows=0, eval_rows=7, rejected={}, eval_digest="e")
    servable = build_servable(base, adapter, ONNX, store, folder / "log")
    return base, adapter, servable, dataset, store, folder / "log"


def _turn(role, content):
    return {"role": role, "content": content}


def measured(ground, tmp_path, serving=ONNX, **changed):
    base, adapter, servable, dataset, _, log_path = ground
    given = {"base": base, "adapter": adapter, "servable": servable, "dataset": dataset} | changed
    return measure_parity(*given.values(), serving, Store(tmp_path / "store"), log_path)


def test_the_forms_of_one_model_agree(ground, tmp_path):
    parity = measured(ground, tmp_path)
    assert [form.name for form in parity.forms] == ["trained", "merged", "built"]
    assert [form.rows for form in parity.forms] == [6, 6, 6]
    trained, merged, built = parity.forms
    assert merged.nats_a_token == pytest.approx(trained.nats_a_token, abs=1e-4)
    assert built.nats_a_token == pytest.approx(merged.nats_a_token, abs=1e-3)
    assert trained.tokens == built.tokens > 6
    assert built.likeliest == pytest.approx(merged.likeliest, abs=0.05)
    assert measure_parity(*ground[:4], ONNX, LookupOnlyStore(tmp_path / "store"), ground[-1]) == parity


def test_an_engine_without_the_adapter_is_refused_and_the_step_is_named(ground, tmp_path):
    """Whether it finds the references likelier or not."""
    base, _, _, _, store, log_path = ground
    without = build_servable(base, None, ONNX, store, log_path)
    with pytest.raises(BuildError, match=r"building the onnx engine changed .* of 6 references by .*max_parity_loss"):
        measured(ground, tmp_path, servable=without)


def form(name, *of_rows):
    return Form(name, len(of_rows), 80, sum(of_rows) / len(of_rows), 0.5, of_rows)


def test_merging_that_loses_the_adapter_is_refused_and_the_step_is_named():
    forms = (form("trained", 1.0, 1.0), form("merged", 1.2, 1.1), form("built", 1.2, 1.1))
    with pytest.raises(
        BuildError, match=r"merging the adapter changed .* by 0\.1500 nats a token \(1\.0000 to 1\.1500"
    ):
        check_parity(Parity(None, forms), ONNX)


@pytest.mark.parametrize(
    ("rows", "refused"), [((1.1, 1.0), False), ((1.2, 1.0), True), ((0.8, 1.0), True), ((float("nan"), 1.0), True)]
)
def test_a_change_up_to_the_limit_is_allowed_in_either_direction(rows, refused):
    forms = (form("trained", 1.0, 1.0), form("merged", *rows))
    serving = ServingSection(max_parity_loss=0.06)
    if refused:
        with pytest.raises(BuildError, match="merging the adapter changed"):
            check_parity(Parity(None, forms), serving)
    else:
        check_parity(Parity(None, forms), serving)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("chat_template", "{% for m in messages %}{{ m['content'] }}{% endfor %}", "prompt 1 has .* tokens as served"),
        ("stop_token_ids", [5], "end token is .*, which does not end a served answer"),
    ],
)
def test_another_template_or_end_token_than_that_of_the_training_is_refused(ground, tmp_path, key, value, sentence):
    copy = tmp_path / "servable"
    shutil.copytree(ground[2].path, copy)
    settings = json.loads((copy / "model" / "1" / "servable.json").read_text())
    (copy / "model" / "1" / "servable.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(BuildError, match=sentence):
        measured(ground, tmp_path, servable=ServableModel(copy, "changed", "onnx"))


def test_the_system_prompt_of_the_configuration_is_part_of_the_prompts(ground, tmp_path):
    base, adapter, _, _, store, log_path = ground
    serving = ONNX.model_copy(update={"system_prompt": "Be brief."})
    servable = build_servable(base, adapter, serving, store, log_path)
    assert measured(ground, tmp_path, serving, servable=servable).forms[0].rows == 6
    with pytest.raises(BuildError, match="prompt 1 has"):
        measured(ground, tmp_path / "other", ONNX, servable=servable)
