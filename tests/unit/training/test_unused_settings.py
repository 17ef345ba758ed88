"""What is said to mean nothing with a method is what peft is not told of."""

import pytest

from tasks.contracts.config import load_config, preset_names
from tasks.contracts.hidden_modules import hidden_modules
from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.unused_settings import unused_settings, warn_of_unused_settings
from tasks.training.parts import with_added_layers, with_virtual_tokens

CHANGES = {"rank": 4, "alpha": 5, "dropout": 0.25, "virtual_tokens": 3, "target_modules": ("q_proj",)}


def told_to_peft(training):
    told = []
    with hidden_modules("bitsandbytes"):  # which peft imports if it finds it, and that takes seconds
        if training.chosen.adds_layers:
            told.append(with_added_layers(tiny_llama(), training, []))
        if training.chosen.has_virtual_tokens:
            told.append(with_virtual_tokens(tiny_llama(), training))
    return [model.peft_config["default"].to_dict() for model in told]


def tiny_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1))


@pytest.mark.parametrize("method", list(METHODS))
def test_what_a_method_does_not_use_is_what_peft_is_not_told_of(method):
    plain = TrainingSection(method=method)
    before = told_to_peft(plain)
    changed = {key for key, value in CHANGES.items() if told_to_peft(plain.model_copy(update={key: value})) != before}
    assert changed == CHANGES.keys() - unused_settings(plain).keys()


@pytest.mark.parametrize(
    ("key", "used_with"),
    [
        ("dpo_beta", {"objective": "dpo"}),
        ("teacher_weight", {"objective": "distillation", "teacher": "dir:/large"}),
        ("temperature", {"objective": "distillation", "teacher": "dir:/large"}),
        ("replay_share", {"replay": "12345678"}),
        ("ewc_weight", {"method": "full", "replay": "12345678"}),
        ("validations", {"validation_rows": 4}),
        ("patience", {"validation_rows": 4}),
        ("main_port", {"nodes": 2, "main_address": "10.0.0.1"}),
    ],
)
def test_a_setting_is_used_where_the_others_say_so_and_only_there(key, used_with):
    assert key in unused_settings(TrainingSection())
    assert key not in unused_settings(TrainingSection(**used_with))


@pytest.mark.filterwarnings("ignore:Logger 'llm_retrain.training' attempted to send logs")
def test_a_setting_that_somebody_chose_and_that_changes_nothing_is_named_and_a_default_is_not(caplog):
    warn_of_unused_settings(TrainingSection(method="full", virtual_tokens=20, rank=8))
    assert caplog.messages == ["training.rank is 8 and changes nothing: training.method full has no LoRA layers"]
    for preset in preset_names():
        warn_of_unused_settings(load_config(preset).training)
    assert len(caplog.messages) == 1
