"""The recent set: held out beside a frozen one from what came later, and never from what a version trained on."""

import json
import logging
import random
from types import SimpleNamespace

import pytest

from tasks.contracts.config import DataSection, load_config
from tasks.contracts.errors import ConfigError
from tasks.contracts.jsonl import digest_of, read_jsonl
from tasks.contracts.store import Store
from tasks.contracts.twins import folded
from tasks.data import build as building
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest
from tasks.data.versions import find_dataset, frozen_dataset

SETTINGS = {"train_rows": 10_000, "eval_rows": 12, "near_duplicates": 0, "cleaning": ({"step": "unicode"},)}


def records(numbers, word="Question"):
    return [{"instruction": f"{word} {n}?", "output": f"Answer {n}."} for n in numbers]


@pytest.fixture
def build(place, write_lines):
    def run(rows, there=place, **settings):
        source = write_lines(*rows)
        data = DataSection(sources=(source,), **{**SETTINGS, **settings})
        return build_dataset(ingest(data, there, (source,)), None, data, there)

    return run


def rows_of(dataset, split="eval", of_set=None):
    return [row for row in read_jsonl(dataset.path / f"{split}.jsonl") if of_set in (None, row.get("set"))]


def asked(dataset, split="eval", of_set=None):
    return {folded(row["messages"][:-1]) for row in rows_of(dataset, split, of_set)}


def test_recent_rows_stand_beside_the_frozen_ones_and_are_new(build):
    first = build(records(range(100)))
    second = build(records(range(400)), frozen_evaluation=first.digest, recent_eval_rows=20)
    assert (second.eval_rows, second.recent_rows) == (32, 20)
    assert asked(second, of_set="anchor") == asked(first)
    recent = asked(second, of_set="recent")
    assert len(recent) == 20
    assert not recent & (asked(first) | asked(first, "train"))
    assert not (recent | asked(first)) & asked(second, "train")
    assert second.train_rows == 400 - 32
    assert all("set" not in row for row in rows_of(second, "train"))


def test_without_recent_rows_nothing_is_said_of_sets(build):
    first = build(records(range(100)))
    second = build(records(range(400)), frozen_evaluation=first.digest)
    assert rows_of(second) == rows_of(first)
    assert all("set" not in row for row in rows_of(second))
    assert second.eval_digest == first.eval_digest == digest_of([row["id"] for row in rows_of(first)])


def test_a_version_with_both_sets_is_frozen_as_a_whole(build, store):
    """What was recent then is anchor now, and without recent rows the rows are of no set."""
    first = build(records(range(100)))
    second = build(records(range(400)), frozen_evaluation=first.digest, recent_eval_rows=20)
    third = build(records(range(900)), frozen_evaluation=second.digest, recent_eval_rows=10)
    assert asked(third, of_set="anchor") == asked(second)
    assert not asked(third, of_set="recent") & (asked(second) | asked(second, "train"))
    plain = build(records(range(900)), frozen_evaluation=second.digest)
    assert asked(plain) == asked(second)
    assert all("set" not in row for row in rows_of(plain))
    assert plain.eval_digest != second.eval_digest, "the same rows of other sets are asked anew"
    assert frozen_dataset(store, second.digest).digest == second.digest


def test_another_division_of_sets_is_found_damaged_as_other_rows_are(build, store):
    first = build(records(range(100)))
    second = build(records(range(400)), frozen_evaluation=first.digest, recent_eval_rows=20)
    assert find_dataset(store, second.digest, "key").facts["eval_digest"] == second.eval_digest
    swapped = [{**row, "set": "anchor"} for row in rows_of(second)]
    from tasks.contracts.evaluation_sets import evaluation_digest

    assert evaluation_digest(rows_of(second)) == second.eval_digest
    assert evaluation_digest(swapped) != second.eval_digest


@pytest.mark.parametrize("seed", range(4))
def test_what_a_version_trained_on_is_never_evaluated_later_while_rows_come_in(build, seed):
    """Clusters grow as well: prompts are answered again, and dialogues go on."""
    draw = random.Random(seed)
    pool = records(range(60))
    frozen = build(pool, seed=seed)
    trained, earlier, rotated = asked(frozen, "train"), set(), set()
    for cycle in range(5):
        pool += records(range(100 * cycle + 100, 100 * cycle + 160))
        for record in draw.sample(pool, 10):
            if "instruction" in record:
                chat = [record["instruction"], record["output"], f"Why {draw.random()}?", "Because."]
                roles = ("user", "assistant") * 2
                pool.append({"messages": [{"role": r, "content": c} for r, c in zip(roles, chat, strict=True)]})
                pool.append({"instruction": record["instruction"].upper(), "output": f"Again {draw.random()}."})
        now = build(pool, seed=seed, frozen_evaluation=frozen.digest, recent_eval_rows=15)
        recent = asked(now, of_set="recent")
        assert 8 <= len(recent) <= 15
        assert not recent & trained
        assert not (recent | asked(frozen)) & asked(now, "train")
        trained |= asked(now, "train")
        rotated |= earlier & asked(now, "train")
        earlier |= recent
    assert rotated, "what was evaluated once is trained on later"


def sentence(draw, words):
    return " ".join("".join(draw.choices("abcdefghijkl", k=6)) for _ in range(words))


def test_a_new_row_takes_no_near_twin_along_that_was_trained_on(build):
    """Paraphrases of old questions come in: none of them is held out, whatever was drawn for it."""
    draw = random.Random(3)
    old = [{"instruction": sentence(draw, 40), "output": sentence(draw, 30)} for _ in range(60)]
    settings = {"near_duplicates": 0.8, "recent_eval_rows": 80}
    frozen = build(old[:10], near_duplicates=0.8, eval_rows=2)
    first = build(old, **settings, frozen_evaluation=frozen.digest)
    trained = asked(first, "train")
    again = [
        {"instruction": f"{record['instruction']} {sentence(draw, 1)}", "output": sentence(draw, 30)} for record in old
    ]
    fresh = [{"instruction": sentence(draw, 40), "output": sentence(draw, 30)} for _ in range(100)]
    second = build([*old, *again, *fresh], **settings, frozen_evaluation=frozen.digest)
    recent = asked(second, of_set="recent")
    assert second.recent_rows >= 10
    beginnings = {prompt[:100] for prompt in trained}
    assert not {prompt[:100] for prompt in recent} & beginnings


def test_what_the_frozen_versions_own_draw_left_over_is_not_what_is_drawn(build):
    """That draw takes the smallest numbers but for paraphrases, so the same numbers again would be these alone."""
    draw = random.Random(4)
    asks = [sentence(draw, 40) for _ in range(120)]
    again = [f"{ask} {sentence(draw, 1)}" for ask in asks[:40]]
    pool = [{"instruction": ask, "output": sentence(draw, 30)} for ask in [*asks, *again]]
    first = build(pool, near_duplicates=0.8, train_rows=10, eval_rows=30)
    second = build(pool, near_duplicates=0.8, train_rows=10, frozen_evaluation=first.digest, recent_eval_rows=15)
    paraphrased = {ask[:100] for ask in asks[:40]}
    recent = [row["messages"][0]["content"] for row in rows_of(second, of_set="recent")]
    assert len(recent) >= 7
    assert sum(text[:100] in paraphrased for text in recent) < len(recent) / 2


def test_what_the_frozen_version_trained_on_is_known_in_todays_wording(build):
    first = build(records(range(60), "Is it ml"))
    terms = {"step": "terms", "terms": {"ml": "millilitres"}}
    cleaning = ({"step": "unicode"}, terms)
    again = [*records(range(60), "Is it ml"), *records(range(60, 300), "Is it ml")]
    second = build(again, frozen_evaluation=first.digest, recent_eval_rows=40, cleaning=cleaning)
    old = {folded([{"role": "user", "content": f"Is it millilitres {n}?"}]) for n in range(60)}
    assert second.recent_rows == 40
    assert not asked(second, of_set="recent") & old


def test_dialogues_are_held_out_as_often_as_single_questions(build):
    frozen = build(records(range(40)))
    chats = []
    for n in range(100):
        turns = [word for turn in range(4) for word in (f"Chat {n}, turn {turn}?", f"Reply {n}.{turn}")]
        messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
        chats += [{"messages": messages[: 2 * turn + 2]} for turn in range(4)]
    now = build(
        [*records(range(40)), *records(range(1_000, 1_100)), *chats],
        frozen_evaluation=frozen.digest,
        recent_eval_rows=40,
    )
    recent = [row["messages"][0]["content"] for row in rows_of(now, of_set="recent")]
    of_chats = sum(text.startswith("Chat") for text in recent)
    assert len(recent) == 40
    assert 10 <= of_chats <= 30, "half of what is new are dialogues"
    held_out = {text.split(",")[0] for text in recent if text.startswith("Chat")}
    trained = {row["messages"][0]["content"].split(",")[0] for row in rows_of(now, "train")}
    assert not held_out & trained


def test_neither_the_order_of_rows_nor_processes_change_the_version(build, tmp_path, place):
    pool = records(range(500))
    first = build(pool[:100])
    settings = {"frozen_evaluation": first.digest, "recent_eval_rows": 25}
    one = build(pool, **settings)
    shuffled = pool[:]
    random.Random(5).shuffle(shuffled)
    again = build(shuffled, **settings)
    assert again.path != one.path
    assert (again.digest, again.eval_digest) == (one.digest, one.eval_digest)
    there = Place(place.home, Store(tmp_path / "other"))
    build(pool[:100], there)
    two = build(pool, there, **settings, execution={"processes": 2})
    assert (two.digest, two.eval_digest) == (one.digest, one.eval_digest)
    assert build(pool, **settings, seed=18).eval_digest != one.eval_digest


def test_the_rows_that_are_only_compared_are_not_counted(build):
    first = build(records(range(100)))
    second = build(records(range(50, 400)), frozen_evaluation=first.digest, recent_eval_rows=20)
    facts = json.loads((second.path / "manifest.json").read_text())["facts"]
    assert set(facts["origins"]) == {"data.sources", "data.frozen_evaluation"}
    assert second.rows_read == 350 + 12
    assert (facts["clusters"], facts["largest_cluster"]) == (
        350 + len([n for n in range(50) if _is_frozen(first, n)]),
        2,
    )


def _is_frozen(dataset, number):
    return any(row["messages"][0]["content"] == f"Question {number}?" for row in rows_of(dataset))


def test_few_new_rows_give_few_recent_ones_and_a_warning(build, caplog):
    first = build(records(range(100)))
    second = build(records(range(140)), frozen_evaluation=first.digest, recent_eval_rows=30)
    assert 1 <= second.recent_rows <= 24, "about 30 in 100 of the 40 that are new"
    data = SimpleNamespace(recent_eval_rows=30, eval_rows=12, frozen_evaluation=first.digest)
    with caplog.at_level(logging.WARNING, "llm_retrain.data"):
        building.warn_of_few(second, None, data)
    assert f"data.recent_eval_rows is 30, but the recent set has {second.recent_rows} rows" in caplog.text
    assert build(records(range(100)), frozen_evaluation=first.digest, recent_eval_rows=30).recent_rows == 0


def test_recent_rows_need_a_frozen_set():
    with pytest.raises(ConfigError, match=r"data\.recent_eval_rows is 5 and data\.frozen_evaluation is empty"):
        load_config(overrides=("data.recent_eval_rows=5",))
