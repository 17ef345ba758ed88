"""The loss that is trained on is the model's own, and logits are computed for the answers alone."""

import pytest

from tasks.contracts.config import TrainingSection
from tasks.training import process
from tasks.training.examples import Example
from tasks.training.process import batch_loss

BATCH = [Example((5, 9, 2, 31), (7, 8, 1)), Example((3,), (40, 41, 42, 43, 1)), Example((17, 18, 19), (20, 1))]
ANSWER_TOKENS = sum(len(example.answer_ids) for example in BATCH)

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,  # far from uniform, so that a scale is seen
    "pad_token_id": 0,
}


def adapted(family, **settings):
    """Return a tiny model of a family with a fresh adapter, which changes nothing yet."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    config = getattr(transformers, f"{family}Config")(**SMALL, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))


def own_loss(model):
    """Return what the model itself says, given labels at the answers' tokens."""
    import torch

    width = max(len(example) for example in BATCH)
    ids, labels = torch.zeros(len(BATCH), width, dtype=torch.long), torch.full((len(BATCH), width), -100)
    for row, example in enumerate(BATCH):
        ids[row, : len(example)] = torch.tensor(example.prompt_ids + example.answer_ids)
        labels[row, len(example.prompt_ids) : len(example)] = torch.tensor(example.answer_ids)
    attended = torch.arange(width) < torch.tensor([[len(example)] for example in BATCH])
    return model(input_ids=ids, attention_mask=attended.long(), labels=labels).loss.item()


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Llama", {}),
        ("Granite", {"logits_scaling": 8.0}),
        ("Gemma2", {"final_logit_softcapping": 2.0, "head_dim": 16}),
        ("Cohere", {"logit_scale": 0.0625}),
    ],
)
def test_the_loss_is_the_models_own_and_the_head_sees_the_answers_only(family, settings):
    import torch

    model = adapted(family, **settings)
    seen = []
    head = model.get_base_model().get_output_embeddings()
    hook = head.register_forward_hook(lambda _, hidden, logits: seen.append(logits.shape[:-1].numel()))
    loss = batch_loss(model, BATCH, torch.device("cpu")).item()
    hook.remove()
    assert loss == pytest.approx(own_loss(model), abs=1e-4)
    assert seen == [ANSWER_TOKENS]


@pytest.mark.parametrize(("limit_bytes", "chosen"), [(10**9, "eager"), (0, "sdpa")])
def test_short_rows_take_eager_attention_on_a_cpu_and_long_rows_the_fused_kernel(monkeypatch, limit_bytes, chosen):
    import torch

    model = adapted("Llama")
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr(process, "EAGER_ATTENTION_BYTES", limit_bytes)
    computed = []

    def note(*arguments):
        computed.append(model.config._attn_implementation)
        return batch_loss(*arguments)

    monkeypatch.setattr(process, "batch_loss", note)
    process.run_steps(model, BATCH, [[0, 1], [2]], TrainingSection(precision="fp32"), torch.device("cpu"))
    assert computed == [chosen, chosen]


def test_eager_attention_keeps_eight_bytes_a_score():
    config = adapted("Llama").config
    assert process.attention_bytes(config, BATCH) == 3 * 2 * 7**2 * 2 * 8
