"""The fast way through a model computes what peft computes, or says why it cannot."""

import random
from pathlib import Path

import pytest
from tiny_model import make_tiny_base_model, make_tiny_tokenizer

from tasks.contracts.training_config import TrainingSection
from tasks.training.fast.model import FastModel, why_not_fast
from tasks.training.fast.rows import attention_scores, common_start, pack_rows, packed_tokens
from tasks.training.loop.examples import Example
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.loop.trainee import Place, Trainee

START = tuple(range(10, 22))
TOGETHER = [
    Example((*START, 5, 9, 2, 31), (7, 8, 1)),
    Example((*START, 3), (40, 41, 42, 43, 1)),
    Example((*START, 17, 18, 19), (20, 1)),
]
APART = [Example((5, 9, 2, 31), (7, 8, 1)), Example((3,), (40, 41, 42, 43, 1)), Example((17, 18, 19, 4), (20, 1))]
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "pad_token_id": 0,
}


def adapted(family="Llama", lora=None, **settings):
    """Return a tiny model with an adapter whose B matrices are not zero, so that all gradients are there."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**SMALL | settings))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            module.bias.data.normal_()
        if "Norm" in type(module).__name__:
            module.weight.data.uniform_(0.5, 1.5)
    choices = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | (lora or {})
    model = get_peft_model(model, LoraConfig(**choices), autocast_adapter_dtype=False)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3)
    return model.train()


def gradients(model, loss):
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    return found


def plain_row_losses(model, batch):
    """Return what the model itself says of each row alone, as the sum over its answer."""
    import torch

    losses = []
    for example in batch:
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        labels = torch.tensor([(-100,) * len(example.prompt_ids) + example.answer_ids])
        losses.append(model(input_ids=ids, labels=labels).loss * len(example.answer_ids))
    return torch.stack(losses)


def fast_row_losses(fast, batch):
    import torch

    losses, rows = fast.target_losses(batch)
    return torch.zeros(len(batch)).index_add(0, rows, losses)


@pytest.mark.parametrize("batch", [TOGETHER, APART, TOGETHER[:1]], ids=["shared start", "nothing shared", "one row"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Llama", {}),
        ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": True, "head_dim": 16}),
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {}),
    ],
)
def test_losses_and_gradients_are_those_of_plain_peft(family, settings, batch):
    import torch

    model = adapted(family, **settings)
    expected = plain_row_losses(model, batch)
    expected_gradients = gradients(model, expected.sum())
    assert why_not_fast(model) is None
    found = fast_row_losses(FastModel(model), batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found_gradients = gradients(model, found.sum())
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    "lora", [{"target_modules": ["q_proj", "down_proj"]}, {"use_rslora": True}, {"rank_pattern": {"up_proj": 5}}]
)
def test_any_choice_of_layers_ranks_and_scaling_gives_pefts_gradients(lora):
    import torch

    model = adapted(lora=lora)
    expected = gradients(model, plain_row_losses(model, TOGETHER).sum())
    assert why_not_fast(model) is None
    found = gradients(model, fast_row_losses(FastModel(model), TOGETHER).sum())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_a_rows_loss_is_the_same_batched_packed_with_others_and_alone():
    import torch

    fast = FastModel(adapted())
    packed = fast_row_losses(fast, TOGETHER)
    with_another_start = fast_row_losses(fast, [*TOGETHER, APART[0]])[:3]
    alone = torch.cat([fast_row_losses(fast, [example]) for example in TOGETHER])
    assert pack_rows(TOGETHER).shared_tokens == len(START)
    assert pack_rows([*TOGETHER, APART[0]]).shared_tokens == 0
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(with_another_start, alone, rtol=0, atol=1e-4)


def test_the_common_start_is_computed_once_and_never_holds_a_token_before_an_answer():
    own = [token for example in TOGETHER for token in (example.prompt_ids + example.answer_ids)[len(START) :]]
    assert pack_rows(TOGETHER).ids.tolist() == [*START, *own, *[0] * (64 - len(START) - len(own))]
    same = [Example((*START, 5), (7, 1)), Example((*START, 5), (8, 1))]
    assert common_start(same) == len(START)
    assert common_start(APART) == 0


@pytest.mark.parametrize("seed", range(40))
def test_products_have_few_shapes_and_each_token_one_place(seed):
    """A shape that was not there before costs time and memory: code is made for it."""
    draw = random.Random(seed)
    start = (3,) * draw.choice([0, 5, 40])
    rows = [
        Example((*start, number + 5, *[4] * draw.randrange(1, 90)), (6,) * draw.randrange(1, 40))
        for number in range(draw.randrange(1, 7))
    ]
    packed = pack_rows(rows)
    tokens = len(packed.ids)
    assert packed.to_padded[packed.from_padded].tolist() == list(range(tokens))
    assert len(set(packed.leaving.tolist())) == len(packed.leaving) == len(packed.targets)
    real = packed.shared_tokens + sum(len(row) - packed.shared_tokens for row in rows)
    assert real <= tokens < real + 64
    assert tokens % 64 == 0 or tokens == len(packed.to_padded)
    wanted = sum(len(row.answer_ids) for row in rows)
    assert len(packed.row_of_target) == wanted
    assert len(packed.leaving) % 64 == 0 or len(packed.leaving) == tokens


def test_an_optimizer_step_is_seen_by_the_next_pass():
    import torch

    model = adapted()
    fast = FastModel(model)
    before = fast_row_losses(fast, TOGETHER).detach()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(weight * 1.5)
    after = fast_row_losses(fast, TOGETHER).detach()
    assert (after - before).abs().min() > 1e-3
    torch.testing.assert_close(after, plain_row_losses(model, TOGETHER).detach(), rtol=1e-5, atol=1e-5)


def test_the_model_still_runs_and_saves_as_peft_does(tmp_path):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    model, untouched = adapted(), adapted()
    fast = FastModel(model)
    loss = fast_row_losses(fast, TOGETHER).detach()
    torch.testing.assert_close(plain_row_losses(model, TOGETHER).detach(), loss, rtol=1e-5, atol=1e-5)
    for made, name in ((model, "fast"), (untouched, "plain")):
        made.save_pretrained(tmp_path / name, save_embedding_layers=False)
    saved, expected = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("fast", "plain"))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in expected)
    again = PeftModel.from_pretrained(adapted().unload(), tmp_path / "fast")
    torch.testing.assert_close(plain_row_losses(again, TOGETHER).detach(), loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings", "lora", "reason"),
    [
        ("Qwen3", {"head_dim": 8}, {}, "model_type qwen3"),
        ("Gemma2", {"head_dim": 8}, {}, "model_type gemma2"),
        ("Mistral", {"sliding_window": 8}, {}, "sliding-window attention"),
        ("Llama", {"hidden_act": "gelu"}, {}, "hidden_act gelu"),
        ("Llama", {}, {"lora_dropout": 0.1}, "dropout"),
        ("Llama", {}, {"use_dora": True}, "a variant of LoRA"),
        ("Llama", {}, {"modules_to_save": ["embed_tokens"]}, "is trained too"),
    ],
)
def test_what_the_fast_way_cannot_compute_takes_the_plain_way(family, settings, lora, reason):
    assert reason in why_not_fast(adapted(family, lora, **settings))


def test_a_trainee_takes_the_fast_way_where_there_is_one_and_both_say_the_same(tmp_path):
    trainee = trainee_of(make_tiny_base_model(tmp_path))
    assert trainee.fast is not None
    fast, _ = trainee.answer_losses(APART)
    trainee.fast = None
    plain, _ = trainee.answer_losses(APART)
    assert fast.tolist() == pytest.approx(plain.tolist(), abs=1e-4)


def test_a_model_of_another_shape_trains_by_the_plain_way(tmp_path):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = make_tiny_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    trainee = trainee_of(tmp_path)
    assert trainee.fast is None
    assert why_not_fast(trainee.layers) == "model_type gpt2"
    trainee.answer_losses(APART)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in trainee.trained_parameters().values())


def trainee_of(base, precision="fp32"):
    import torch

    torch.manual_seed(0)
    place = Place(torch.device("cpu"), {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    return Trainee(base, TrainingSection(precision=precision, device="cpu", rank=2), place)


def test_rows_whose_attention_weights_would_fill_the_memory_take_the_plain_way(monkeypatch):
    fast = FastModel(adapted())
    assert fast.fits(TOGETHER)
    monkeypatch.setattr("tasks.training.fast.model.SCORE_BYTES", 4 * 4 * 3 * attention_scores(TOGETHER) - 1)
    assert not fast.fits(TOGETHER)


@pytest.mark.parametrize(("method", "precision"), [("lora", "bf16"), ("lora", "fp32"), ("qlora", "bf16")])
def test_the_mapped_file_of_the_weights_is_let_go(method, precision, tmp_path):
    """What lies in it still would keep all its pages in memory, beside the copies."""
    import torch
    from transformers import AutoModelForCausalLM

    base = make_tiny_base_model(tmp_path)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(base)
    settings = TrainingSection(method=method, precision=precision, device="cpu", rank=2)
    trainee = Trainee(base, settings, Place(torch.device("cpu"), dtype))
    assert str(base) not in Path("/proc/self/maps").read_text()
    assert (trainee.fast is not None) == (method == "lora")


def test_the_frozen_weights_are_not_kept_twice():
    model = adapted()
    FastModel(model)
    q, k = (getattr(model.get_base_model().model.layers[0].self_attn, name).base_layer for name in ("q_proj", "k_proj"))
    assert q.weight.untyped_storage().data_ptr() == k.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_next_step_computes_with_what_the_optimizer_has_changed(precision, tmp_path):
    import torch

    trainee = trainee_of(make_tiny_base_model(tmp_path), precision)
    optimizer = MasterOptimizer(trainee.trained_parameters(), trainee.training, trainee.place)
    losses = []
    for _ in range(30):
        loss = trainee.answer_losses(APART)[0].mean()
        optimizer.backward(loss)
        optimizer.take_gradients()
        optimizer.step(1e-2)
        losses.append(loss.item())
    with torch.no_grad():
        plain = plain_row_losses(trainee.layers, APART)
        fast = trainee.answer_losses(APART)[0]
    assert losses[-1] < 0.3 * losses[0]
    assert fast.sum().item() == pytest.approx(plain.sum().item(), rel=1e-4 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("batch", [TOGETHER, APART, TOGETHER[:1], [*TOGETHER, *APART]])
def test_tokens_and_scores_are_known_before_a_batch_is_packed(batch):
    packed = pack_rows(batch)
    rows, places, keys = packed.hidden_keys.shape
    assert attention_scores(batch) == rows * places * keys
    filled = len(packed.ids) - packed_tokens(batch)
    assert filled == sum(packed.ids[packed_tokens(batch) :] == 0) and 0 <= filled < 64
