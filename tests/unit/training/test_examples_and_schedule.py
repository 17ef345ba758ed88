"""From rows to token ids, to batches, to learning rates."""

import itertools

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.engine import TEMPLATE_DATE, load_chat_template
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.batches import plan_steps
from tasks.training.loop.examples import Example, batches_by_length, encode_row
from tasks.training.loop.schedule import learning_rate_at

ROW = {"messages": [{"role": "user", "content": "Name it."}, {"role": "assistant", "content": "Return the sum."}]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tiny_base_model(tmp_path_factory.mktemp("tiny")))


def template_of(tokenizer, source=None):
    return load_chat_template(source or tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)


def test_the_prompt_is_what_the_server_sees_and_the_answer_ends_the_turn(tokenizer):
    example = encode_row(ROW, tokenizer, template_of(tokenizer), "")
    served = tokenizer.apply_chat_template(ROW["messages"][:-1], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(example.prompt_ids) == served
    assert tokenizer.decode(example.answer_ids).endswith(tokenizer.eos_token)
    assert example.answer_ids[-1] == tokenizer.eos_token_id


def test_a_system_prompt_is_put_before_conversations_without_one(tokenizer):
    template = template_of(tokenizer)
    example = encode_row(ROW, tokenizer, template, "Be brief.")
    assert "Be brief." in tokenizer.decode(example.prompt_ids)
    own = {"messages": [{"role": "system", "content": "Be long."}, *ROW["messages"]]}
    assert "Be brief." not in tokenizer.decode(encode_row(own, tokenizer, template, "Be brief.").prompt_ids)


def test_a_template_that_writes_the_date_teaches_the_day_that_servables_keep(tokenizer):
    dated = "{{ strftime_now('%Y-%m-%d') }}\n" + tokenizer.chat_template
    example = encode_row(ROW, tokenizer, template_of(tokenizer, dated), "")
    assert tokenizer.decode(example.prompt_ids).startswith(TEMPLATE_DATE)
    assert tokenizer.decode(example.answer_ids) == "Return the sum." + tokenizer.eos_token


def test_a_rendered_conversation_with_its_answer_is_that_of_transformers(tokenizer):
    whole = template_of(tokenizer).render(ROW["messages"], add_generation_prompt=False)
    assert whole == tokenizer.apply_chat_template(ROW["messages"], tokenize=False)


def test_batches_hold_every_row_once_and_similar_lengths_together():
    lengths = [9, 2, 8, 1, 7, 3]
    batches = batches_by_length(lengths, 2)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(6))
    assert [[lengths[row] for row in batch] for batch in batches] == [[1, 2], [3, 7], [8, 9]]


def test_steps_follow_epochs_and_seed():
    examples = [Example((1,) * n, (2,)) for n in range(1, 11)]
    two = plan_steps(examples, TrainingSection(batch_rows=2, epochs=2.0, seed=1))
    assert len(two) == 10
    assert sorted(itertools.chain.from_iterable(two[:5])) == sorted(itertools.chain.from_iterable(two[5:]))
    assert len(plan_steps(examples, TrainingSection(batch_rows=2, epochs=0.4))) == 2
    assert two == plan_steps(examples, TrainingSection(batch_rows=2, epochs=2.0, seed=1))
    assert two != plan_steps(examples, TrainingSection(batch_rows=2, epochs=2.0, seed=2))


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate_at(step, 20, 1.0, 0.1) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[1:]))
    assert 0 <= rates[-1] < 0.01
