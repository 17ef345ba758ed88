"""From rows to token ids, to batches, to learning rates."""

import copy
import itertools

import pytest
from tiny_model import make_tiny_base_model

from tasks.contracts.engine import TEMPLATE_DATE, load_chat_template
from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.batches import batches_by_length, micro_batches, plan_steps
from tasks.training.loop.examples import RowEncoder, encode_rows
from tasks.training.loop.schedule import learning_rate_at

ROW = {"messages": [{"role": "user", "content": "Name it."}, {"role": "assistant", "content": "Return the sum."}]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tiny_base_model(tmp_path_factory.mktemp("tiny")))


def template_of(tokenizer, source=None):
    return load_chat_template(source or tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)


def test_the_prompt_is_what_the_server_sees_and_the_answer_ends_the_turn(tokenizer):
    example = RowEncoder(tokenizer, "").encode(ROW)
    served = tokenizer.apply_chat_template(ROW["messages"][:-1], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(example.prompt_ids) == served
    assert tokenizer.decode(example.answer_ids).endswith(tokenizer.eos_token)
    assert example.answer_ids[-1] == tokenizer.eos_token_id


def test_a_system_prompt_is_put_before_conversations_without_one(tokenizer):
    example = RowEncoder(tokenizer, "Be brief.").encode(ROW)
    assert "Be brief." in tokenizer.decode(example.prompt_ids)
    own = {"messages": [{"role": "system", "content": "Be long."}, *ROW["messages"]]}
    assert "Be brief." not in tokenizer.decode(RowEncoder(tokenizer, "Be brief.").encode(own).prompt_ids)


def test_a_template_that_writes_the_date_teaches_the_day_that_servables_keep(tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%Y-%m-%d') }}\n" + tokenizer.chat_template
    example = RowEncoder(dated, "").encode(ROW)
    assert tokenizer.decode(example.prompt_ids).startswith(TEMPLATE_DATE)
    assert tokenizer.decode(example.answer_ids) == "Return the sum." + tokenizer.eos_token


def test_rows_that_the_chat_template_refuses_are_counted_and_the_first_is_named(tokenizer, tmp_path):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + tokenizer.chat_template
    )
    own = {"messages": [{"role": "system", "content": "Be long."}, *ROW["messages"]]}
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "a" * 64, **ROW}, {"id": "b" * 64, **own}, {"id": "c" * 64, **own}])
    said = (
        f"^2 of 3 rows of training.replay cannot be spelled, first {'b' * 64}: the chat template refuses this "
        "conversation: System role not supported; leave them out, or give another base_model.chat_template"
    )
    with pytest.raises(TrainingError, match=said):
        encode_rows(tmp_path / "rows.jsonl", RowEncoder(strict, ""), TrainingSection(), 512, "training.replay")


def test_a_rendered_conversation_with_its_answer_is_that_of_transformers(tokenizer):
    whole = template_of(tokenizer).render(ROW["messages"], add_generation_prompt=False)
    assert whole == tokenizer.apply_chat_template(ROW["messages"], tokenize=False)


def test_batches_hold_every_row_once_and_similar_lengths_together():
    lengths = [9, 2, 8, 1, 7, 3]
    batches = batches_by_length(lengths, 2)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(6))
    assert [[lengths[row] for row in batch] for batch in batches] == [[1, 2], [3, 7], [8, 9]]


def test_steps_follow_epochs_and_seed():
    lengths = list(range(2, 12))
    two = plan_steps(lengths, TrainingSection(batch_rows=2, epochs=2.0, seed=1))
    assert len(two) == 10
    assert sorted(itertools.chain.from_iterable(two[:5])) == sorted(itertools.chain.from_iterable(two[5:]))
    assert len(plan_steps(lengths, TrainingSection(batch_rows=2, epochs=0.4))) == 2
    assert two == plan_steps(lengths, TrainingSection(batch_rows=2, epochs=2.0, seed=1))
    assert two != plan_steps(lengths, TrainingSection(batch_rows=2, epochs=2.0, seed=2))


@pytest.mark.timeout(20)
def test_steps_of_no_own_row_are_refused_and_not_waited_for():
    with pytest.raises(TrainingError, match="there is no training row left to make steps of"):
        plan_steps([4, 5], TrainingSection(replay="ab" * 8, replay_share=0.5), own_rows=0)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate_at(step, 20, 1.0, 0.1) for step in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[1:]))
    assert 0 <= rates[-1] < 0.01


def test_each_fall_of_the_learning_rate_is_the_one_it_is_named_after():
    def at(step, schedule):
        return learning_rate_at(step, 100, 1.0, 0.1, schedule)

    assert at(55, "linear") == pytest.approx(0.5)
    assert at(99, "constant") == 1.0
    assert at(39, "inverse_sqrt") == pytest.approx((10 / 40) ** 0.5)
    assert at(55, "cosine") == pytest.approx(0.5)


def test_micro_batches_hold_every_row_once_and_keep_to_their_tokens():
    lengths = [5, 1, 9, 3, 3]
    assert micro_batches([0, 1, 2, 3, 4], lengths, 0) == [[1, 3, 4, 0, 2]]
    parts = micro_batches([0, 1, 2, 3, 4], lengths, 9)
    assert parts == [[1, 3, 4], [0], [2]]
    assert micro_batches([2, 0], lengths, 4) == [[0], [2]], "a row that is longer alone is a part of its own"


def test_replayed_rows_are_a_share_of_every_pass_and_change_from_pass_to_pass():
    lengths = [4] * 18 + [4] * 50
    training = TrainingSection(batch_rows=5, epochs=2.0, replay="ab" * 8, replay_share=0.1)
    steps = plan_steps(lengths, training, own_rows=18)
    assert len(steps) == 8
    passes = [sorted(itertools.chain.from_iterable(part)) for part in (steps[:4], steps[4:])]
    assert all(rows[:18] == list(range(18)) and len(rows) == 20 for rows in passes)
    assert passes[0][18:] != passes[1][18:]
