"""What is minimised is what the model itself, and the papers, say; and it does not hang on how rows are batched."""

import math

import pytest
from tiny_model import make_tiny_base_model, make_tiny_tokenizer

from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.collate import collate
from tasks.training.loop.examples import Example
from tasks.training.loop.memory import attention_bytes
from tasks.training.loop.objectives import Distillation, Preference, Supervised
from tasks.training.loop.trainee import Place, Trainee

ROWS = [Example((5, 9, 2, 31), (7, 8, 1)), Example((3,), (40, 41, 42, 43, 1)), Example((17, 18, 19), (20, 1))]
PAIRS = [Example((5, 9, 2), (7, 8, 1), (60, 61)), Example((3,), (40, 41, 42, 1), (9,)), Example((4, 4), (8,), (7, 7))]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,  # far from uniform, so that a scale is seen
    "pad_token_id": 0,
    "max_position_embeddings": 128,
}


def place():
    import torch

    return Place(torch.device("cpu"), torch.float32)


def trainee_of(base, **settings):
    import torch

    torch.manual_seed(0)
    return Trainee(base, TrainingSection(precision="fp32", device="cpu", rank=2, **settings), place())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_base_model(tmp_path_factory.mktemp("tiny"))


def family_base(folder, family, settings):
    """Write a tiny model of a family beside the tiny tokenizer."""
    import torch
    import transformers

    tokenizer = make_tiny_tokenizer()
    config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **SMALL, **settings)
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def own_loss(model):
    """Return what the model itself says, given labels at the answers' tokens."""
    import torch

    width = max(len(example) for example in ROWS)
    ids, labels = torch.zeros(len(ROWS), width, dtype=torch.long), torch.full((len(ROWS), width), -100)
    for row, example in enumerate(ROWS):
        ids[row, : len(example)] = torch.tensor(example.prompt_ids + example.answer_ids)
        labels[row, len(example.prompt_ids) : len(example)] = torch.tensor(example.answer_ids)
    attended = torch.arange(width) < torch.tensor([[len(example)] for example in ROWS])
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
def test_the_loss_is_the_models_own_and_the_head_sees_the_answers_only(family, settings, tmp_path):
    trainee = trainee_of(family_base(tmp_path, family, settings))
    trainee.fast = None  # it never computes all logits, which is what is counted here
    seen = []
    head = trainee.transformer.get_output_embeddings()
    head.register_forward_hook(lambda _, hidden, logits: seen.append(logits.shape[:-1].numel()))
    objective = Supervised(trainee, ROWS)
    loss = objective.loss_sum(range(3)).item() / objective.divisor(range(3))
    assert seen == [sum(len(example.answer_ids) for example in ROWS)]
    assert loss == pytest.approx(own_loss(trainee.transformer), abs=1e-4)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "qlora"])
def test_a_rows_loss_is_the_same_alone_and_in_a_padded_batch(method, tiny):
    """In fp32 to 1e-4, whatever the method puts before or into the layers."""
    objective = Supervised(trainee_of(tiny, method=method, virtual_tokens=3), ROWS)
    alone = [objective.loss_sum([row]).item() for row in range(3)]
    assert objective.loss_sum(range(3)).item() == pytest.approx(sum(alone), abs=1e-4)


@pytest.mark.parametrize("method", ["prefix", "prompt", "p_tuning", "lora_prefix"])
def test_virtual_tokens_take_part_in_the_loss_and_get_gradients(method, tiny):
    import torch

    trainee = trainee_of(tiny, method=method, virtual_tokens=3)
    objective = Supervised(trainee, ROWS)
    before = objective.loss_sum(range(3))
    before.backward()
    virtual = {name: p for name, p in trainee.trained_parameters().items() if name.startswith("virtual.")}
    assert virtual
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in virtual.values())
    with torch.no_grad():
        for parameter in virtual.values():
            parameter.add_(0.5)
    assert objective.loss_sum(range(3)).item() != pytest.approx(before.item(), abs=1e-3)


def test_a_preference_starts_at_log_two_and_falls_as_the_chosen_answer_gets_likelier(tiny):
    import torch

    trainee = trainee_of(tiny, objective="dpo", dpo_beta=0.5)
    objective = Preference(trainee, PAIRS, 0.5)
    objective.prepare()
    assert objective.divisor(range(3)) == 3
    start = objective.loss_sum(range(3))
    assert start.item() / 3 == pytest.approx(math.log(2), abs=1e-5)
    start.backward()
    with torch.no_grad():
        for parameter in trainee.trained_parameters().values():
            parameter.sub_(0.05 * parameter.grad)
    assert objective.loss_sum(range(3)).item() < start.item() - 1e-3


def test_a_preference_is_beta_times_what_the_margin_gained(tiny):
    import torch

    trainee = trainee_of(tiny, objective="dpo")
    objective = Preference(trainee, PAIRS, 0.3)
    objective.prepare()
    at_start = [
        log_p(trainee, e.prompt_ids, e.answer_ids) - log_p(trainee, e.prompt_ids, e.rejected_ids) for e in PAIRS
    ]
    with torch.no_grad():
        for parameter in trainee.trained_parameters().values():
            parameter.add_(0.02)
    now = [log_p(trainee, e.prompt_ids, e.answer_ids) - log_p(trainee, e.prompt_ids, e.rejected_ids) for e in PAIRS]
    expected = sum(math.log1p(math.exp(-0.3 * (after - before))) for after, before in zip(now, at_start, strict=True))
    assert objective.loss_sum(range(3)).item() == pytest.approx(expected, abs=1e-4)


def log_p(trainee, prompt, answer):
    """Return an answer's log-probability, token by token, from the model's whole logits."""
    import torch

    with torch.inference_mode():
        logits = trainee.transformer(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) + n - 1, token].item() for n, token in enumerate(answer))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_and_any_other_has(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    settings = {"objective": "distillation", "teacher": "dir:x", "teacher_weight": 1.0, "temperature": 2.0}
    trainee = trainee_of(tiny, **settings)
    same = Distillation(trainee, ROWS, AutoModelForCausalLM.from_pretrained(tiny).eval())
    assert same.loss_sum(range(3)).item() == pytest.approx(0, abs=1e-4)
    other = AutoModelForCausalLM.from_pretrained(make_tiny_base_model(tmp_path / "other", seed=1)).eval()
    objective = Distillation(trainee, ROWS, other)
    assert objective.loss_sum(range(3)).item() == pytest.approx(divergence(trainee, other, 2.0), rel=1e-4)


def divergence(trainee, teacher, temperature):
    """Return T² KL(teacher ‖ student) at T over the answers' tokens, from whole logits."""
    import torch

    total = 0.0
    for example in ROWS:
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        places = slice(len(example.prompt_ids) - 1, ids.shape[1] - 1)
        with torch.inference_mode():
            taught = (teacher(ids).logits[0, places] / temperature).softmax(-1)
            own = (trainee.transformer(ids).logits[0, places] / temperature).softmax(-1)
        total += temperature**2 * (taught * (taught / own).log()).sum().item()
    return total


def test_targets_are_the_answers_tokens_and_padding_is_masked_by_place():
    import torch

    batch = collate(ROWS, torch.device("cpu"))
    assert batch.ids.shape == (3, 7)
    assert batch.attended.sum(1).tolist() == [len(example) for example in ROWS]
    assert batch.targets.tolist() == [token for example in ROWS for token in example.answer_ids]
    assert batch.rows.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert batch.wanted.nonzero().tolist()[:3] == [[0, 3], [0, 4], [0, 5]]


def test_eager_attention_keeps_eight_bytes_a_score(tiny):
    config = trainee_of(tiny).transformer.config
    assert attention_bytes(config, ROWS) == 3 * 2 * 7**2 * 2 * 8
