import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of, read_jsonl
from tasks.contracts.store import LookupOnlyStore, NotInStore, Store, read_manifest
from tasks.contracts.twins import folded
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.rows import answer_of, prompt_of


def load_rows(path):
    return list(read_jsonl(path))


def lines(prompts, answers):
    return [{"instruction": f"Prompt {p}", "output": f"Answer {a}"} for p in range(prompts) for a in range(answers)]


MIXED = [
    *lines(prompts=30, answers=2),
    *[{"instruction": f" prompt  {p}", "output": "another answer"} for p in range(10)],
    *[{"instruction": f"PROMPT {p}", "output": f"ANSWER {p % 2}"} for p in range(10)],
    *[{"instruction": "Empty", "output": " "}, {"instruction": "Short", "output": "four"}],
    *[{"instruction": "Long" * 2_000, "output": "Answer"}],
    *[b"not json", b"\xff\xfe", {"wrong": "shape"}, [1, 2]],
]


@pytest.fixture
def build(write_lines, data_of, place):
    """Run ingest and build_dataset over records, with own evaluation records if they are given."""

    def run(records, evaluation=None, target: Store = place.store, **settings):
        there = replace(place, store=target)
        data = data_of(write_lines(*records), **settings)
        rows = ingest(data, there, data.sources)
        if evaluation is None:
            return build_dataset(rows, None, data, there)
        own = write_lines(*evaluation, name="evaluation.jsonl")
        data = data.model_copy(update={"evaluation_sources": (own,)})
        return build_dataset(rows, ingest(data, there, (own,)), data, there)

    return run


def assert_it_adds_up(dataset):
    """The reference, the files and the accounts of each origin tell the same story."""
    train, evaluation = load_rows(dataset.path / "train.jsonl"), load_rows(dataset.path / "eval.jsonl")
    rejected = Counter(record["reason"] for record in read_jsonl(dataset.path / "rejected.jsonl"))
    assert (len(train), len(evaluation), rejected) == (dataset.train_rows, dataset.eval_rows, dataset.rejected)
    assert dataset.rows_read == len(train) + len(evaluation) + rejected.total()
    origins = read_manifest(dataset.path)["facts"]["origins"]
    assert sum(account["rows_read"] for account in origins.values()) == dataset.rows_read
    for account in origins.values():
        parts = account["train_rows"] + account["eval_rows"] + sum(account["rejected"].values())
        assert account["rows_read"] == parts


def assert_no_twins(dataset):
    train = {folded(prompt_of(row)) for row in load_rows(dataset.path / "train.jsonl")}
    evaluation = [folded(prompt_of(row)) for row in load_rows(dataset.path / "eval.jsonl")]
    assert train
    assert evaluation
    assert not train & set(evaluation)


near = pytest.mark.parametrize("near_duplicates", [0, 0.8])
"""Planted near duplicates are divided in test_leak_free.py."""


def test_counts_add_up_for_a_mixed_file(build):
    dataset = build(MIXED, train_rows=20, eval_rows=8, min_answer_chars=5)
    assert_it_adds_up(dataset)
    assert (dataset.rows_read, dataset.train_rows, dataset.eval_rows) == (len(MIXED), 20, 8)
    reasons = ("not JSON", "not UTF-8", "not a usable conversation", "empty answer", "answer too short", "row too long")
    assert [dataset.rejected[reason] for reason in reasons] == [1, 1, 2, 1, 1, 1]
    assert dataset.rejected["exact duplicate"] == 10


@near
@pytest.mark.parametrize("seed", range(6))
def test_counts_add_up_and_no_twin_is_in_both_whatever_was_drawn(build, seed, near_duplicates):
    """Random files: prompts repeat, answers repeat, some lines are malformed."""
    draw = random.Random(seed)
    made = [{"instruction": f"P{draw.randrange(25)}", "output": f"A{draw.randrange(4)}"} for _ in range(80)]
    records = [b"broken" if draw.random() < 0.1 else record for record in made]
    settings = {"train_rows": draw.randrange(1, 60), "eval_rows": draw.randrange(1, 12)}
    settings["near_duplicates"] = near_duplicates
    held_out = build(records, **settings)
    own = build(records, evaluation=draw.sample(records, 20), **settings)
    for dataset in (held_out, own):
        assert_it_adds_up(dataset)
        assert_no_twins(dataset)


def test_each_prompt_is_evaluated_once_and_its_other_rows_are_twins(build):
    dataset = build(lines(prompts=20, answers=3), eval_rows=4)
    assert dataset.eval_rows == len({folded(prompt_of(row)) for row in load_rows(dataset.path / "eval.jsonl")}) == 4
    assert dataset.rejected == {"twin of an evaluation row": 8}
    assert dataset.train_rows == 48
    assert_no_twins(dataset)


@pytest.mark.parametrize(
    ("prompts", "quota", "held_out"), [(220, 200, 66), (10, 3, 3), (10, 4, 3), (9, 9, 2), (3, 3, 1), (2, 64, 1)]
)
def test_at_most_three_prompts_in_ten_are_held_out(build, prompts, quota, held_out):
    dataset = build(lines(prompts=prompts, answers=1), train_rows=2_000, eval_rows=quota)
    assert (dataset.eval_rows, dataset.train_rows) == (held_out, prompts - held_out)


def test_an_evaluation_set_of_your_own_is_not_cut_to_a_share(build):
    own = [{"instruction": f"Q{n}", "output": "A"} for n in range(40)]
    dataset = build(lines(prompts=10, answers=1), evaluation=own)
    assert (dataset.eval_rows, dataset.train_rows) == (40, 10)


def test_twins_are_found_through_case_white_space_and_unicode_composition(build):
    same = ["Caf\u00e9 one", "cafe\u0301  ONE", " CAF\u00c9\none "]
    rows = [{"instruction": prompt, "output": f"Answer {n}"} for n, prompt in enumerate(same)]
    dataset = build([*rows, {"instruction": "Other", "output": "Answer"}], eval_rows=1)
    assert_no_twins(dataset)
    assert dataset.train_rows + dataset.rejected.get("twin of an evaluation row", 0) == 3


def test_rows_beyond_the_quota_are_kept_as_not_selected(build):
    dataset = build(lines(prompts=20, answers=1), train_rows=5, eval_rows=3)
    assert (dataset.train_rows, dataset.eval_rows, dataset.rejected) == (5, 3, {"not selected": 12})
    records = list(read_jsonl(dataset.path / "rejected.jsonl"))
    assert {(record["detail"], record["source"]) for record in records} == {("data.train_rows is 5", "rows.jsonl")}
    assert all(answer_of(record["row"]) == "Answer 0" for record in records)


def test_own_evaluation_rows_are_all_used_up_to_their_quota(build):
    own = lines(prompts=12, answers=1)
    dataset = build(lines(prompts=20, answers=2), evaluation=[*own, b"broken"], eval_rows=10)
    assert (dataset.eval_rows, dataset.train_rows) == (10, 20)
    assert dataset.rejected == {"twin of an evaluation row": 20, "not selected": 2, "not JSON": 1}
    assert {row["source"] for row in load_rows(dataset.path / "eval.jsonl")} == {"evaluation.jsonl"}
    assert_it_adds_up(dataset)
    assert_no_twins(dataset)


def test_each_origin_has_its_own_account(build):
    dataset = build(lines(prompts=4, answers=1), evaluation=[*lines(prompts=1, answers=1), b"broken"])
    assert read_manifest(dataset.path)["facts"]["origins"] == {
        "data.sources": {
            "rows_read": 4,
            "train_rows": 3,
            "eval_rows": 0,
            "rejected": {"twin of an evaluation row": 1},
        },
        "data.evaluation_sources": {"rows_read": 2, "train_rows": 0, "eval_rows": 1, "rejected": {"not JSON": 1}},
    }


@near
@pytest.mark.parametrize("own", [False, True])
def test_the_data_set_does_not_depend_on_the_order_of_the_lines(build, tmp_path, own, near_duplicates):
    evaluation = MIXED[5:40] if own else None
    settings = {"train_rows": 15, "eval_rows": 6, "near_duplicates": near_duplicates}
    expected = build(MIXED, evaluation, **settings)
    for seed in range(3):
        draw = random.Random(seed)
        shuffled_evaluation = draw.sample(evaluation, len(evaluation)) if evaluation else None
        shuffled = build(
            draw.sample(MIXED, len(MIXED)),
            shuffled_evaluation,
            Store(tmp_path / f"store{seed}"),
            **settings,
        )
        assert (shuffled.digest, shuffled.eval_digest) == (expected.digest, expected.eval_digest)


def test_another_seed_chooses_other_rows(build):
    records = lines(prompts=40, answers=1)
    chosen = {build(records, train_rows=10, eval_rows=5, seed=seed).eval_digest for seed in range(4)}
    assert len(chosen) == 4


@near
def test_more_training_rows_leave_the_evaluation_rows_as_they_are(build, near_duplicates):
    """The champion's stored predictions stay comparable when only the training quota changes."""
    records = lines(prompts=40, answers=1)
    settings = {"eval_rows": 8, "near_duplicates": near_duplicates}
    small, large = build(records, train_rows=5, **settings), build(records, train_rows=25, **settings)
    assert small.eval_digest == large.eval_digest
    ids = [{row["id"] for row in load_rows(dataset.path / "train.jsonl")} for dataset in (small, large)]
    assert ids[0] < ids[1]


def test_the_evaluation_digest_is_that_of_the_sorted_ids(build):
    dataset = build(lines(prompts=12, answers=1), eval_rows=3)
    ids = [row["id"] for row in load_rows(dataset.path / "eval.jsonl")]
    assert ids == sorted(ids)
    assert dataset.eval_digest == digest_of(ids)


def test_an_unchanged_data_set_is_found_by_looking_up_alone(build, store):
    made = build(MIXED, train_rows=9, eval_rows=4)
    assert build(MIXED, None, LookupOnlyStore(store.root), train_rows=9, eval_rows=4) == made
    with pytest.raises(NotInStore):
        build(MIXED, None, LookupOnlyStore(store.root), train_rows=9, eval_rows=5)


@pytest.mark.parametrize(
    ("records", "settings", "message"),
    [
        ([], {}, "leaves nothing to evaluate on: of 0 rows read, 0 are for training, 0 for evaluation, rejected: none"),
        (lines(1, 1), {}, "leaves nothing to train on: of 1 rows read, 0 are for training, 1 for evaluation"),
        (
            lines(1, 1) * 3,
            {},
            "leaves nothing to train on: of 3 rows read, .* rejected: 2 exact duplicate; most \(2\) repeat another row",
        ),
        (
            [*lines(2, 2), {"instruction": "Empty", "output": ""}],
            {"min_answer_chars": 99},
            "leaves nothing to evaluate on: .* rejected: 4 answer too short, 1 empty answer; "
            r"data\.min_answer_chars \(99\) rejected most \(4\): lower it, or add rows",
        ),
        (
            [{"instruction": "Long" * n, "output": "Answer"} for n in range(5, 8)],
            {"max_row_chars": 16},
            r"leaves nothing to evaluate on: .*; data\.max_row_chars \(16\) rejected most \(3\): raise it, or add rows",
        ),
        (
            [b"x", b"y"],
            {},
            "leaves nothing to evaluate on: of 2 rows read, .* rejected: 2 not JSON; most \(2\) are no usable records",
        ),
    ],
    ids=["empty", "one row", "all duplicates", "all too short", "all too long", "all malformed"],
)
def test_a_data_set_without_rows_is_one_sentence_with_the_counts_by_reason(build, store, records, settings, message):
    with pytest.raises(DataError, match=f"^data.sources {message}"):
        build(records, **settings)
    assert list(store.entries("dataset")) == []


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ([], "data.evaluation_sources leaves nothing to evaluate on: of 3 rows read, 3 are for training"),
        (
            lines(3, 1),
            "data.sources leaves nothing to train on: .* rejected: 3 twin of an evaluation row; most \(3\) ask what",
        ),
    ],
    ids=["no evaluation rows", "all training rows are twins"],
)
def test_an_own_evaluation_set_that_leaves_nothing_is_named(build, evaluation, message):
    with pytest.raises(DataError, match=f"^{message}"):
        build(lines(prompts=3, answers=1), evaluation=evaluation)


def test_no_path_enters_the_data_set(build, tmp_path: Path):
    dataset = build(MIXED, train_rows=9, eval_rows=4)
    for path in dataset.path.iterdir():
        assert str(tmp_path) not in path.read_text()
