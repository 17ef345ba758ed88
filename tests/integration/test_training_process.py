"""Training for real, on a tiny model: it learns, it is repeatable, and it fails in one sentence with nothing kept."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.config import BaseModelSection
from tasks.contracts.errors import BaseModelError, TrainingError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.training.adapter import TrainingJob, train_adapter, training_steps
from tasks.training.base_model import prepare_base_model
from tasks.training.steps import train_adapter as train_step

pytestmark = pytest.mark.integration

FAST = TrainingSection(rank=8, alpha=16, learning_rate=5e-3, epochs=6, batch_rows=4, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def place(tmp_path, tiny):
    """A base model reference, a data set of 16 rows, and a store."""
    rows = [
        {
            "id": f"{n:064d}",
            "messages": [
                {"role": "user", "content": f"Say number {n}."},
                {"role": "assistant", "content": "Return the sum of two numbers."},
            ],
        }
        for n in range(16)
    ]
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_jsonl(dataset / "train.jsonl", rows)
    return (
        BaseModelRef(path=tiny, digest="base", source="dir:tiny"),
        DatasetRef(dataset, "rows", rows_read=16, train_rows=16, eval_rows=0, rejected={}, eval_digest="none"),
        Store(tmp_path / "store"),
        tmp_path / "training.log",
    )


def train(place, training=FAST, listener=lambda event: None):
    base, dataset, store, log_path = place
    return train_adapter(TrainingJob(base, dataset, training), store, log_path, listener)


def test_the_loss_falls_and_the_saved_adapter_gives_the_learned_answer(place, tiny):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    events = []
    adapter = train(place, FAST.model_copy(update={"epochs": 15.0}), events.append)
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["loss"] < 0.2 * steps[0]["loss"]
    assert [step["step"] for step in steps] == list(range(1, 61))
    assert training_steps(adapter) == steps
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), adapter.path / "adapter")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say number 3."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        answer = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip() == "Return the sum of two numbers."
    assert answer[-1] == tokenizer.eos_token_id, "it must have learned to stop"


def test_the_same_inputs_train_the_same_adapter_and_are_not_trained_twice(place, tmp_path):
    first = train(place)
    paths_do_not_name_this_machine(first, place)
    elsewhere = (place[0], place[1], Store(tmp_path / "another store"), place[3])
    assert train(elsewhere).digest == first.digest
    events = []
    assert train(place, listener=events.append) == first
    assert events == [], "the stored adapter is reused without a training process"


def test_nf4_trains_and_keeps_its_weights_through_an_evaluation(place, tiny):
    import torch

    from tasks.training.loop.trainee import Place, Trainee

    training = FAST.model_copy(update={"method": "qlora", "epochs": 10.0})
    steps = training_steps(train(place, training))
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    model = Trainee(tiny, training, Place(torch.device("cpu"), torch.bfloat16)).transformer
    ids = torch.arange(32).reshape(2, 16)
    before = model.train()(ids).logits
    with torch.inference_mode():
        model.eval()(ids)
    assert torch.equal(model.train()(ids).logits, before), "the evaluation pass scrambled the packed weights"


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_nothing(place, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    broken = make_tiny_base_model(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    base = BaseModelRef(path=broken, digest="broken", source="dir:broken")
    with pytest.raises(TrainingError, match=r"loss at step 1 is nan; lower training\.learning_rate"):
        train((base, *place[1:]))
    assert list(place[2].entries("adapter")) == []


def test_rows_that_are_all_too_long_are_one_sentence(place):
    with pytest.raises(TrainingError, match=r"training\.max_length_tokens is 16, and none of the 16 rows fits"):
        train(place, FAST.model_copy(update={"max_length_tokens": 16}))


def test_rows_that_are_too_long_are_counted_and_warned_of_and_the_progress_counts_the_rest(place, caplog, monkeypatch):
    base, dataset, store, _ = place
    rows = list(read_jsonl(dataset.path / "train.jsonl"))
    for row in rows[:6]:
        row["messages"][0]["content"] *= 20
    write_jsonl(dataset.path / "train.jsonl", rows)
    training = FAST.model_copy(update={"max_length_tokens": 128, "epochs": 2.0})
    shown, steps = [], []

    @contextmanager
    def record(title, total, key):
        yield lambda done, note: shown.append((done, total))

    monkeypatch.setattr("tasks.training.steps.stage_progress", record)
    job = TrainingJob(base, dataset, training)
    adapter = train_step.fn(job, Home(store.root.parent), store, steps.append)
    assert (adapter.train_rows, adapter.rows_too_long) == (10, 6)
    assert "6 of 16 training rows are longer than training.max_length_tokens (128)" in caplog.text
    assert shown == [(step, 6) for step in range(1, 7)], "10 rows are 3 batches an epoch, 16 would have been 4"
    again: list[object] = []
    assert train_step.fn(job, Home(store.root.parent), store, again.append) == adapter
    assert again == [event for event in steps if event["event"] == "step"]


def test_a_killed_training_process_is_explained_and_nothing_is_kept(place):
    def kill(event):
        if event["event"] == "step":
            training_processes(os.getpid())[0].kill()

    with pytest.raises(TrainingError, match=r"SIGKILL.*memory ran out.*training\.micro_batch_tokens"):
        train(place, FAST.model_copy(update={"epochs": 500.0}), kill)
    assert list(place[2].entries("adapter")) == []


def test_the_training_process_dies_with_a_parent_that_is_killed(place, tmp_path):
    base, dataset, _, _ = place
    script = f"""
from pathlib import Path
from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.store import Store
from tasks.training.adapter import TrainingJob, train_adapter
base = BaseModelRef(Path({str(base.path)!r}), "base", "dir:tiny")
rows = DatasetRef(Path({str(dataset.path)!r}), "rows", 16, 16, 0, {{}}, "none")
job = TrainingJob(base, rows, TrainingSection(epochs=5000, device="cpu", precision="fp32"))
train_adapter(job, Store(Path({str(tmp_path / "orphan store")!r})), Path({str(tmp_path / "log")!r}),
              lambda event: print(event["event"], flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline().strip() for _ in range(2)] == ["plan", "start"]
    (child,) = training_processes(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_base_model_directory_is_copied_by_digest_and_needs_safetensors_and_a_chat_template(tiny, tmp_path):
    home, store = Home(tmp_path / "home"), Store(tmp_path / "store")
    base = prepare_base_model(BaseModelSection(source=f"dir:{tiny}"), home, store)
    assert (base.path / "model.safetensors").is_file()
    assert prepare_base_model(BaseModelSection(source=f"dir:{tiny}"), home, store).digest == base.digest
    without = make_tiny_base_model(tmp_path / "without")
    (without / "model.safetensors").rename(without / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"base_model\.source is .*without.* has no \*\.safetensors"):
        prepare_base_model(BaseModelSection(source=f"dir:{without}"), home, store)
    mute = make_tiny_base_model(tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(BaseModelError, match=r"mute.* has no chat template"):
        prepare_base_model(BaseModelSection(source=f"dir:{mute}"), home, store)
    with pytest.raises(BaseModelError, match=r"nowhere', which is not a directory"):
        prepare_base_model(BaseModelSection(source="dir:nowhere"), home, store)


def test_a_base_model_that_asks_for_remote_code_is_refused(tmp_path):
    import json

    asking = make_tiny_base_model(tmp_path / "asking")
    config = json.loads((asking / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_tiny.Tiny"}
    (asking / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="asks for remote code"):
        prepare_base_model(BaseModelSection(source=f"dir:{asking}"), Home(tmp_path / "home"), Store(tmp_path / "store"))


def training_processes(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "tasks.training.process" in " ".join(child.cmdline())]


def paths_do_not_name_this_machine(adapter, place):
    text = (adapter.path / "adapter" / "adapter_config.json").read_text()
    assert str(Path.home()) not in text
    assert str(place[0].path) not in text
    assert '"base_model_name_or_path": "dir:tiny"' in text


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_gpu_that_is_there_trains_in_bf16(place, method):
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("LLM_RETRAIN_REQUIRE_GPU"):
            pytest.fail("LLM_RETRAIN_REQUIRE_GPU is set, and PyTorch sees no CUDA device")
        pytest.skip("needs a CUDA device")
    events = []
    changes = {"device": "auto", "precision": "bf16", "method": method, "epochs": 15.0}
    train(place, FAST.model_copy(update=changes), events.append)
    start = next(event for event in events if event["event"] == "start")
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert (start["device"], start["precision"]) == ("cuda", "bfloat16")
    assert losses[-1] < 0.5 * losses[0]
