"""Every method trains, saves, and comes back with the same outputs, in peft as in the engines that serve it.

Trained and built in this process, which imports torch once; one method goes through the processes and the store.
"""

import pytest
from tiny_builds import answer_of_peft, build_here
from tiny_training import ANSWER, dataset_of, row, section, tiny_base, train_here

from tasks.contracts.config import ServingSection
from tasks.contracts.engine import load_engine
from tasks.contracts.methods import METHODS
from tasks.contracts.store import Store
from tasks.serving import parity_process
from tasks.serving.build import build_servable
from tasks.training.adapter import TrainingJob, train_adapter

pytestmark = pytest.mark.integration

QUESTION = [{"role": "user", "content": "Say number 3."}]
RATES = {"prefix": 0.3, "prompt": 0.3, "p_tuning": 0.03, "ia3": 0.1, "full": 3e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return dataset_of(tmp_path_factory.mktemp("rows"), [row(n, f"Say number {n}.", ANSWER) for n in range(16)])


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training_of(method):
    """Return settings that teach the one answer in 48 steps."""
    rate = RATES.get(method, 1e-2)
    return section(method=method, rank=8, alpha=16, epochs=12, virtual_tokens=8, learning_rate=rate)


@pytest.mark.parametrize("method", list(METHODS))
def test_what_was_trained_is_what_every_engine_of_the_method_answers(method, base, dataset, tmp_path, monkeypatch):
    adapter = tmp_path / "adapter"
    said = train_here(TrainingJob(base, dataset, training_of(method)), adapter, monkeypatch)
    losses = [event["loss"] for event in said if event["event"] == "step"]
    assert losses[-1] < 0.7 * losses[0]
    expected = answer_of_peft(base, adapter, method, QUESTION)
    assert expected != answer_of_base(base)
    for engine in METHODS[method].engines:
        assert build_here(base, adapter, engine, tmp_path / engine).generate(QUESTION).text == expected, engine
    trained, merged, built = forms_of(base, adapter, tmp_path / engine, dataset, monkeypatch)
    assert merged["of_rows"] == pytest.approx(trained["of_rows"], abs=0.02)
    assert built["of_rows"] == pytest.approx(merged["of_rows"], abs=0.05)  # the transformers engine has 16 bits


def test_a_method_of_two_parts_goes_through_the_processes_and_the_store_to_the_same_answer(base, dataset, tmp_path):
    store, log_path = Store(tmp_path / "store"), tmp_path / "log"
    adapter = train_adapter(TrainingJob(base, dataset, training_of("lora_prefix")), store, log_path)
    serving = ServingSection(engine="transformers", max_new_tokens=24)
    built = build_servable(base, adapter, serving, store, log_path)
    expected = answer_of_peft(base, adapter.path / "adapter", "lora_prefix", QUESTION)
    assert load_engine(built.model_directory / "1").generate(QUESTION).text == expected


def forms_of(base, adapter, directory, dataset, monkeypatch):
    """Return what the parity process says of the forms from the adapter to a built engine."""
    said = []
    monkeypatch.setattr(parity_process, "say", lambda event, **facts: said.append(facts))
    spec = {"base": str(base.path), "adapter": str(adapter), "version_directory": str(directory / "1")}
    rows = str(dataset.path / "train.jsonl")
    parity_process.run({**spec, "precision": "float32", "system_prompt": "", "rows": rows, "count": 3})
    return said


def answer_of_base(base):
    """Return what the base answers without an adapter."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base.path), AutoModelForCausalLM.from_pretrained(base.path)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.eval().generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    return tokenizer.decode(output, skip_special_tokens=True).strip()
