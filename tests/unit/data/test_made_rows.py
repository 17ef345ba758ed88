"""Rows made of training rows: marked, in no evaluation set, alike no evaluation row, and part of the digest."""

import random
from dataclasses import replace

import pytest
from tiny_model import make_tiny_tokenizer

from tasks.contracts.artifacts import BaseModelRef
from tasks.contracts.config import DataSection, load_config
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import LookupOnlyStore
from tasks.data.augment.made_rows import NEAR_EVALUATION, add_made_rows
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.records.erasure import ERASED, erase
from tasks.data.records.traces import traces_of
from tasks.data.rows import build_row, rejected_line, row_line
from tasks.data.versions import chosen_version

WORDS = ("river", "stone", "window", "garden", "letter", "engine", "music", "forest", "winter", "paper", "silver")


@pytest.fixture
def synonyms(tmp_path):
    path = tmp_path / "synonyms.tsv"
    path.write_text("quick\tfast\tswift\nlarge\tbig\tgreat\n")
    return {"method": "synonyms", "path": str(path)}


@pytest.fixture
def build(place, write_lines):
    draw = random.Random(3)

    def passage():
        return " ".join(draw.choice(WORDS) + str(draw.randrange(90)) for _ in range(12))

    source = write_lines(
        *[{"instruction": f"A quick look at the large {passage()}", "output": passage()} for _ in range(60)]
    )

    def run(store=place.store, base=None, settings=None, **augment):
        data = DataSection(
            sources=(source,), augment=augment, **{"train_rows": 500, "eval_rows": 12, **(settings or {})}
        )
        there = replace(place, store=store)
        dataset = build_dataset(ingest(data, there, data.sources), None, data, there, base)
        return dataset, chosen_version(place.store, dataset.digest)

    return run


def test_no_row_is_made_unless_a_method_is_named(build):
    dataset, version = build()
    assert (dataset.made_rows, version.facts["augmentation"]) == (0, {})
    assert not any("parent" in row["meta"] for row in read_jsonl(version.path / "train.jsonl"))


def test_made_rows_stand_among_the_training_rows_with_parent_and_method(build, synonyms):
    dataset, version = build(methods=[synonyms])
    train = list(read_jsonl(version.path / "train.jsonl"))
    made = [row for row in train if "parent" in row["meta"]]
    assert dataset.made_rows == len(made) > 20
    assert dataset.train_rows == len(train) - len(made)
    assert {row["meta"]["method"] for row in made} == {"synonyms"}
    assert {row["meta"]["parent"] for row in made} <= {row["id"] for row in train}
    assert [row["id"] for row in train] == sorted(row["id"] for row in train)
    evaluation = list(read_jsonl(version.path / "eval.jsonl"))
    assert evaluation
    assert not any("parent" in row["meta"] for row in evaluation)
    assert sorted(path.name for path in version.path.iterdir() if path.name.startswith("work")) == []


def test_the_same_settings_make_the_same_rows_and_another_dictionary_others(build, place, synonyms, tmp_path):
    first, _ = build(methods=[synonyms])
    assert build(LookupOnlyStore(place.store.root), methods=[synonyms])[0] == first
    (tmp_path / "synonyms.tsv").write_text("quick\tspeedy\nlarge\thuge\n")
    assert build(methods=[synonyms])[0].digest != first.digest


def test_train_rows_limits_what_was_read_and_made_rows_come_on_top(build, synonyms):
    dataset, version = build(settings={"train_rows": 20}, methods=[synonyms])
    assert (dataset.train_rows, dataset.made_rows) == (20, 20)
    assert len(list(read_jsonl(version.path / "train.jsonl"))) == 40


def test_the_build_cleans_made_rows_with_its_steps_and_its_tokenizer(build, tmp_path):
    make_tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = BaseModelRef(tmp_path / "base", "d", "dir:base")
    (tmp_path / "synonyms.tsv").write_text("quick\t" + "very quick and " * 60 + "hasty\n")
    long = {"method": "synonyms", "path": str(tmp_path / "synonyms.tsv")}
    steps = {"cleaning": [{"step": "length", "max_row_tokens": 600}]}
    settings = {"min_similarity": 0, "max_similarity": 1, "methods": [long]}
    dataset, version = build(base=base, settings=steps, **settings)
    assert dataset.rejected == {}
    assert version.facts["augmentation"] == {"synonyms": {"dropped by length": dataset.train_rows}}
    [step, _] = version.facts["augmentation_steps"]["synonyms"]
    assert step == {"step": "length", "changed": 0, "dropped": dataset.train_rows}


def erased(place, row):
    traces = traces_of(row, place.home, place.store)
    return erase(place.home, traces.marks, "asked")


def test_an_erased_parent_takes_its_made_rows_with_it(build, place, synonyms):
    first, version = build(methods=[synonyms])
    train = {row["id"]: row for row in read_jsonl(version.path / "train.jsonl")}
    made = next(row for row in train.values() if "parent" in row["meta"])
    erased(place, train[made["meta"]["parent"]])
    second, later = build(methods=[synonyms])
    assert second.rejected == {ERASED: 1}
    assert second.made_rows == first.made_rows - 1
    left = {row["id"] for row in read_jsonl(later.path / "train.jsonl")}
    assert set(train) - left == {made["id"], made["meta"]["parent"]}


def test_an_erased_made_row_is_not_made_again_and_its_parent_stays(build, place, synonyms):
    first, version = build(methods=[synonyms])
    train = {row["id"]: row for row in read_jsonl(version.path / "train.jsonl")}
    made = next(row for row in train.values() if "parent" in row["meta"])
    erased(place, made)
    second, later = build(methods=[synonyms])
    assert (second.made_rows, second.rejected) == (first.made_rows - 1, {})
    before, after = (each.facts["augmentation"]["synonyms"] for each in (version, later))
    assert after == {**before, "made": before["made"] - 1, ERASED: 1}
    assert set(train) - {row["id"] for row in read_jsonl(later.path / "train.jsonl")} == {made["id"]}


@pytest.mark.parametrize(
    "kept_out", ["evaluated", "twin", "near duplicate of the evaluated", "near duplicate of a twin"]
)
def test_what_is_made_too_much_like_a_row_that_is_held_out_is_not_trained_on(tmp_path, synonyms, kept_out):
    """The variant of a training row happens to be what such a row asks, with one word more."""

    def row(prompt):
        return build_row([{"role": "user", "content": prompt}, {"role": "assistant", "content": "Yes."}], "a", "b")

    text = "look at the garden behind the old stone house near the river and say what grows there in winter"
    held_out = [row(f"A {word} {text} now") for word in ("fast", "swift")]
    evaluated, twin = row("What is the time in the capital of that country?"), row("WHAT is the time there?")
    details = {
        "twin": ("twin of an evaluation row", f"the prompt is that of row {evaluated['id']}"),
        "near duplicate of the evaluated": ("near duplicate", f"of row {evaluated['id']}, 81% alike"),
        "near duplicate of a twin": ("near duplicate", f"of row {twin['id']}, 81% alike"),
    }
    rejected = [rejected_line(twin, "twin of an evaluation row", f"the prompt is that of row {evaluated['id']}")]
    if kept_out in details:
        rejected += [rejected_line(each, *details[kept_out]) for each in held_out]
    (tmp_path / "train.jsonl").write_bytes(row_line(row(f"A quick {text}")))
    evaluation = [evaluated, *held_out] if kept_out == "evaluated" else [evaluated]
    (tmp_path / "eval.jsonl").write_bytes(b"".join(map(row_line, evaluation)))
    (tmp_path / "rejected.jsonl").write_bytes(b"".join(rejected))
    data = DataSection(augment={"methods": [synonyms], "min_similarity": 0.1, "max_similarity": 1.0})
    counts = add_made_rows(tmp_path, data).counts
    assert counts["synonyms"] == {"made": 0, NEAR_EVALUATION: 1}
    assert len(list(read_jsonl(tmp_path / "train.jsonl"))) == 1


def test_paths_of_methods_count_from_their_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("data:\n  augment:\n    methods: [{method: synonyms, path: words.tsv}]\n")
    [method] = load_config(file=tmp_path / "mine.yaml").data.augment.methods
    assert method.path == str(tmp_path / "words.tsv")


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1/v1", "http://127.0.0.1/v1?api_key=secret"])
def test_no_secret_stands_in_an_endpoint_s_address(url):
    """The configuration is logged to MLflow and kept in the store."""
    with pytest.raises(ValueError, match="expected an address"):
        DataSection(augment={"methods": [{"method": "endpoint", "url": url, "model": "m"}]})
