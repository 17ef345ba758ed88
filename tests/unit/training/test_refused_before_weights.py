"""What cannot work is one sentence before any weight is loaded: the base of these tests has no weights."""

import pytest
from tiny_model import CONTEXT_TOKENS, make_tiny_base_model, make_tiny_tokenizer
from tiny_training import dataset_of, row, section

from tasks.contracts.artifacts import BaseModelRef
from tasks.contracts.errors import TrainingError
from tasks.contracts.hidden_modules import hidden_modules
from tasks.training import device, process
from tasks.training.adapter import TrainingJob
from tasks.training.device import choose_device


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_tiny_base_model(tmp_path_factory.mktemp("tiny"))
    (folder / "model.safetensors").unlink()
    return BaseModelRef(folder, "base", "dir:tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return dataset_of(tmp_path_factory.mktemp("rows"), [row(0, "Name it.", "Return the sum.")])


def refusal(base, dataset, tmp_path, taught_by=None, **settings):
    """Return the sentence that a training is refused with."""
    job = TrainingJob(base, dataset, section(**settings), teacher=taught_by)
    with pytest.raises(TrainingError) as raised:
        process.run(job.order(tmp_path / "adapter", None))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_base_of_these_tests_cannot_be_loaded(base, dataset, tmp_path):
    with pytest.raises(OSError, match="no file named model"):
        process.run(TrainingJob(base, dataset, section()).order(tmp_path / "adapter", None))


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "ia3", "lora_prefix"])
def test_an_unknown_target_module(base, dataset, tmp_path, method):
    said = refusal(base, dataset, tmp_path, method=method, target_modules=["q_proj", "query"], precision="auto")
    assert said.startswith("training.target_modules names 'query', and the base model has no such linear layer")
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in said


@pytest.mark.parametrize("method", ["lora", "rslora", "pissa", "qlora"])
def test_a_rank_larger_than_the_layer(base, dataset, tmp_path, method):
    said = refusal(base, dataset, tmp_path, method=method, rank=65, precision="auto")
    assert said.startswith("training.rank is 65, and model.layers.0.")
    assert said.endswith("expected at most 64")


@pytest.mark.parametrize("method", ["prefix", "prompt", "p_tuning", "lora_prefix"])
def test_virtual_tokens_that_fill_the_context(base, dataset, tmp_path, method):
    said = refusal(base, dataset, tmp_path, method=method, virtual_tokens=CONTEXT_TOKENS - 1)
    assert said == (
        f"training.virtual_tokens is {CONTEXT_TOKENS - 1}, and the base model's context has {CONTEXT_TOKENS} tokens; "
        f"expected at most {CONTEXT_TOKENS - 2}"
    )


def test_ia3_on_an_architecture_whose_layers_nobody_listed(dataset, tmp_path):
    from transformers import StableLmConfig

    tokenizer = make_tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    StableLmConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        architectures=["StableLmForCausalLM"],
    ).save_pretrained(tmp_path)
    unlisted = BaseModelRef(tmp_path, "unlisted", "dir:unlisted")
    said = refusal(unlisted, dataset, tmp_path, method="ia3")
    assert said.startswith("training.method ia3 does not know the layers of stablelm; name the layers of keys")


def test_a_teacher_with_another_vocabulary(base, dataset, tmp_path):
    other = make_tiny_tokenizer()
    other.add_tokens(["another"])
    other.save_pretrained(tmp_path / "teacher")
    teacher = BaseModelRef(tmp_path / "teacher", "teacher", "dir:teacher")
    said = refusal(base, dataset, tmp_path, teacher, objective="distillation", teacher="dir:/models/large")
    assert said == (
        "training.teacher is 'dir:/models/large', whose vocabulary is not that of the base model; expected a model of "
        "the same family"
    )


def test_fp16_where_there_is_no_gpu(base, dataset, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal(base, dataset, tmp_path, precision="fp16", device="auto")
    assert (
        said
        == "training.precision is 'fp16', which GPUs train in, and the device is a CPU; expected bf16, fp32 or auto"
    )


def test_qlora_without_bitsandbytes(base, dataset, tmp_path, monkeypatch):
    import sys

    for name in [each for each in sys.modules if each.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    with hidden_modules("bitsandbytes"):
        said = refusal(base, dataset, tmp_path, method="qlora", precision="auto")
    assert said.startswith("training.method is 'qlora', which needs bitsandbytes")


def test_qlora_where_bitsandbytes_has_no_library_for_the_device(monkeypatch):
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    with pytest.raises(TrainingError, match=r"has no library for cpu on this machine; expected training\.method lora"):
        choose_device(section(method="qlora", precision="auto"))
    broken = bitsandbytes.cextension.ErrorHandlerMockBNBNativeLibrary("it could not be loaded")
    monkeypatch.setattr(bitsandbytes.cextension, "lib", broken)
    with pytest.raises(TrainingError, match="has no library for cuda"):
        device.check_bitsandbytes("cuda")
