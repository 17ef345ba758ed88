"""The digest of a data version, what it tells, and how versions differ."""

import json
import os
import random
import warnings
from dataclasses import replace

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import ConfigError, DataError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import Store
from tasks.data import ingest, lines, part, plot
from tasks.data.build import build_dataset
from tasks.data.execution import executors
from tasks.data.plot import fonts_for, write_plot
from tasks.data.records.sightings import find_record
from tasks.data.versions import LENGTH_EDGES, Profile, chosen_version, compare, data_versions, profile, rows_of

WORDS = ("river", "stone", "window", "garden", "letter", "engine", "music", "forest", "winter", "paper", "silver")


def passage(draw, words=40):
    return " ".join(draw.choice(WORDS) + str(draw.randrange(100)) for _ in range(words))


def questions(count, seed=1):
    draw = random.Random(seed)
    return [{"instruction": f"Summarise: {passage(draw)}", "output": passage(draw, 12)} for _ in range(count)]


@pytest.fixture
def build(place, write_lines):
    """Build a data version of one or several files of records."""

    def run(*files, there=place, **settings):
        sources = tuple(write_lines(*records, name=f"{name}.jsonl") for name, records in files)
        data = DataSection(sources=sources, **{"max_malformed_share": 1.0, "train_rows": 500, **settings})
        dataset = build_dataset(ingest.ingest(data, there, sources), None, data, there)
        return dataset, chosen_version(there.store, dataset.digest)

    return run


@pytest.mark.slow
def test_order_of_files_number_of_processes_and_size_of_chunks_change_no_digest(build, place, tmp_path, monkeypatch):
    """The same rows, read as one file after the other, in any order, in one or three processes, in small chunks."""
    files = [(name, [*questions(40, seed), *questions(8, 9), {"bad": seed}]) for seed, name in enumerate("abcd", 1)]
    expected, _ = build(*files)
    for number, (order, processes, chunk_bytes) in enumerate([("dcba", 1, 2_000), ("bdac", 3, 5_000)]):
        monkeypatch.setattr(executors, "SMALL_BYTES", 0)
        monkeypatch.setattr(part, "CHUNK_BYTES", chunk_bytes)
        there = replace(place, store=Store(tmp_path / f"store{number}"))
        shuffled = [files["abcd".index(name)] for name in order]
        made, _ = build(*shuffled, there=there, execution={"processes": processes})
        assert (made.digest, made.rejected) == (expected.digest, expected.rejected)
    assert expected.rejected["exact duplicate"] == 24


def test_a_copy_with_a_changed_word_is_a_near_duplicate_and_another_question_about_the_text_is_not(build):
    draw = random.Random(4)
    text, answer = passage(draw, 80), passage(draw, 30)
    rows = [
        {"instruction": f"Which stone? {text}", "output": answer},
        {"instruction": f"Which stone? {text} really", "output": answer + " now"},
        {"instruction": f"Which river? {text}", "output": passage(draw, 30)},
        *questions(40),
    ]
    dataset, version = build(("a", rows), eval_rows=1)
    assert dataset.rejected.pop("near duplicate") == 1
    [record] = [
        record for record in read_jsonl(version.path / "rejected.jsonl") if record["reason"] == "near duplicate"
    ]
    assert answer in record["row"]["messages"][-1]["content"]
    assert "% alike" in record["detail"]
    assert version.facts["largest_cluster"] == 2, "both questions about the text are one cluster"


def test_no_training_row_is_alike_an_evaluation_row(build):
    draw = random.Random(8)
    rows = []
    for record in questions(60):
        rows += [
            record,
            {**record, "instruction": record["instruction"] + " " + passage(draw, 2), "output": passage(draw, 12)},
        ]
    dataset, version = build(("a", rows), eval_rows=20)
    train, evaluation = (
        [row["messages"][0]["content"][:200] for row in rows_of(version, s)] for s in ("train", "eval")
    )
    assert (dataset.eval_rows, dataset.rejected) == (18, {"near twin of an evaluation row": 18})
    assert train
    assert not set(train) & set(evaluation)
    report = json.loads((version.path / "contamination.json").read_text())
    assert report["removed_from_training"] == {"twins": 0, "near_twins": 18}
    assert len(report["examples"]["near_twins"]) == 18


def test_a_frozen_evaluation_set_keeps_its_rows_when_data_is_added(build):
    _, first = build(("a", questions(60)), eval_rows=10)
    more = [*questions(60), *questions(200, seed=7)]
    frozen, second = build(("a", more), eval_rows=10, frozen_evaluation=first.digest[:12])
    assert [row["id"] for row in rows_of(second, "eval")] == [row["id"] for row in rows_of(first, "eval")]
    assert frozen.eval_digest == first.facts["eval_digest"]
    assert frozen.rejected == {"twin of an evaluation row": 10}
    assert second.facts["origins"]["data.frozen_evaluation"]["eval_rows"] == 10
    assert second.facts["contamination"] == {"twins": 10, "near_twins": 0, "own_records": 10}
    fresh, _ = build(("a", more), eval_rows=10)
    assert fresh.eval_digest != frozen.eval_digest


def test_of_the_twins_of_frozen_rows_their_own_records_are_counted_apart(build):
    """Also where a step words them otherwise today; who asks the same and gets another answer is not the record."""
    rows = questions(60)
    _, first = build(("a", rows), eval_rows=10)
    asked = {row["messages"][0]["content"] for row in rows_of(first, "eval")}
    others = [{**row, "output": "quite another answer"} for row in rows if row["instruction"] in asked][:4]
    lower = {"step": "replace", "name": "x", "pattern": "Summarise", "replacement": "Abridge"}
    for steps in ((), (lower,)):
        _, second = build(("a", [*rows, *others]), eval_rows=10, frozen_evaluation=first.digest, cleaning=steps)
        assert second.facts["contamination"] == {"twins": 14, "near_twins": 0, "own_records": 10}
        report = json.loads((second.path / "contamination.json").read_text())
        assert report["own_records"] == 10


def test_a_frozen_set_that_does_not_exist_is_one_sentence(build):
    build(("a", questions(5)))
    with pytest.raises(DataError, match=r"^data\.frozen_evaluation is 'abcdef12': no data version has that digest"):
        build(("a", questions(5)), frozen_evaluation="abcdef12")


def test_a_profile_counts_every_row_once(build):
    _, version = build(("a", questions(50)), eval_rows=10)
    shape = profile(version)
    assert shape.rows == {"training": 40, "made": 0, "evaluation": 10}
    assert shape.slices == {"default": shape.rows}
    assert sum(shape.prompt_chars) == sum(shape.answer_chars) == 50


def test_made_rows_are_counted_beside_those_that_were_read(build, tmp_path):
    (tmp_path / "words.tsv").write_text("Summarise\tAbridge\n")
    method = {"method": "synonyms", "path": str(tmp_path / "words.tsv")}
    _, plain = build(("a", questions(30)), eval_rows=5)
    dataset, version = build(("a", questions(30)), eval_rows=5, augment={"methods": [method], "min_similarity": 0})
    shape = profile(version)
    assert 0 < dataset.made_rows == shape.rows["made"] == shape.slices["default"]["made"]
    assert shape.rows["training"] == dataset.train_rows == 25
    difference = compare(plain, version)
    assert (len(difference.added), difference.added_made) == (dataset.made_rows, dataset.made_rows)
    assert compare(version, plain).added_made == 0


def test_versions_differ_in_rows_that_came_went_or_got_another_answer(build):
    old = questions(50)
    new = [*old[10:49], {**old[49], "output": "quite another answer"}, *questions(5, seed=3)]
    _, first = build(("a", old), eval_rows=5)
    _, second = build(("a", new), eval_rows=5)
    found = compare(first, second)
    assert (len(found.added), len(found.removed), len(found.changed)) == (5, 10, 1)
    assert found.same + len(found.moved) == 39
    back = compare(second, first)
    assert (back.added, back.removed) == (found.removed, found.added)
    assert back.changed == [(new_id, old_id) for old_id, new_id in found.changed]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_two_versions_are_drawn_side_by_side(build, tmp_path, ending):
    _, version = build(("a", questions(30)), eval_rows=5)
    write_plot(tmp_path / f"plot{ending}", ["one", "other"], [profile(version)] * 2)
    assert (tmp_path / f"plot{ending}").stat().st_size > 5_000
    with pytest.raises(DataError, match=r"expected a file that ends in \.png, \.svg or \.pdf"):
        write_plot(tmp_path / "plot.txt", ["one"], [profile(version)])


def shape_of(*slices):
    counts = {"training": 3, "made": 1, "evaluation": 1}
    lengths = [0] * (len(LENGTH_EDGES) + 1)
    rows = {kind: number * len(slices) for kind, number in counts.items()}
    return Profile(rows, dict.fromkeys(slices, counts), lengths, lengths, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_slice_names_in_any_letters_are_drawn_without_a_warning(tmp_path, ending, caplog):
    """Chinese, a line feed, what looks like a formula, and more than there is room for."""
    shape = shape_of("心血管" * 50, "back\tpain\n", "cost $a_{ $", "x" * 500)
    caplog.set_level("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Logger .* attempted to send logs")  # Prefect's, where a test imported it
        write_plot(tmp_path / f"plot{ending}", ["one"], [shape])
    assert (tmp_path / f"plot{ending}").stat().st_size > 1_000
    assert [record.name for record in caplog.records if not record.name.startswith("matplotlib")] == [
        "llm_retrain.data"
    ]


def test_letters_that_no_font_has_are_told_and_those_that_one_has_are_not():
    assert fonts_for("heart ≤ é") == (["DejaVu Sans"], frozenset())
    families, missing = fonts_for("heart \ue0ff\n")
    assert families[0] == "DejaVu Sans"
    assert missing == {"\ue0ff", "\n"}


def test_another_installed_font_draws_what_the_first_has_not(monkeypatch):
    """No machine need have Chinese fonts: the first font of this test has next to nothing."""
    monkeypatch.setattr(plot, "_FIRST", "cmex10")
    families, missing = fonts_for("Я")
    assert (families[0], len(families), missing) == ("cmex10", 2, frozenset())


def test_no_version_at_all_says_how_to_make_one(place):
    with pytest.raises(DataError, match=r"^the data version is 'abcdef12', and there is no data version yet; make one"):
        chosen_version(place.store, "abcdef12")
    with pytest.raises(DataError, match="there is no data version yet; make one with llm-retrain data build"):
        chosen_version(place.store, "")


def test_a_system_message_that_all_rows_share_makes_them_no_near_duplicates(build):
    draw = random.Random(6)
    system = {"role": "system", "content": passage(draw, 120)}
    rows = [
        {"messages": [system, {"role": "user", "content": passage(draw, 8)}, {"role": "assistant", "content": answer}]}
        for answer in ("positive", "negative") * 20
    ]
    dataset, version = build(("a", rows), eval_rows=5)
    assert (dataset.train_rows, dataset.eval_rows, dataset.rejected) == (35, 5, {})
    assert version.facts["largest_cluster"] == 1


def test_a_template_that_makes_everything_alike_is_said(build, caplog):
    draw = random.Random(6)
    template = passage(draw, 150)
    rows = [{"instruction": f"{template} {passage(draw, 3)}", "output": passage(draw, 9)} for _ in range(40)]
    with pytest.raises(DataError, match="leaves nothing to train on"):
        build(("a", rows), eval_rows=5)
    assert "raise data.near_duplicates (0.8) or set it to 0" in caplog.text
    assert build(("a", rows), eval_rows=5, near_duplicates=0)[0].train_rows == 35


@pytest.mark.parametrize("damaged", ["eval.jsonl", "manifest.json"])
def test_a_frozen_set_that_was_changed_in_place_is_refused(build, damaged):
    _, first = build(("a", questions(20)), eval_rows=2)
    path = first.path / damaged
    if damaged == "eval.jsonl":
        path.write_text(path.read_text().replace("river", "RIVER"))
    else:
        manifest = json.loads(path.read_text())
        manifest["facts"]["eval_digest"] = "0" * 64
        path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"^data\.frozen_evaluation is .*was changed after it was made .*restore"):
        build(("a", questions(30)), frozen_evaluation=first.digest)


def test_two_evaluation_sets_are_refused():
    with pytest.raises(ValueError, match="both name an evaluation set"):
        DataSection(evaluation_sources=({"kind": "docstrings"},), frozen_evaluation="0123456789")


def test_a_missing_file_of_words_is_one_sentence(build):
    with pytest.raises(ConfigError, match=r"data\.cleaning names 'none\.txt', which cannot be read"):
        build(("a", questions(5)), cleaning=({"step": "blocked", "path": "none.txt"},))


def test_many_files_are_read_with_few_of_them_open(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "_OPEN_FILES", 3)
    files = [tmp_path / str(number) for number in range(9)]
    for number, path in enumerate(files):
        path.write_bytes(b"%d\n" % number)
    with lines.LineReader(files) as reader:
        read = [reader.read(number, 0, 2) for number in [*range(9), *range(9)]]
        assert len(reader._open) == 3
    assert read == [b"%d\n" % number for number in [*range(9), *range(9)]]


def test_builds_that_made_the_same_files_are_one_version_for_which_the_newest_speaks(build, place):
    rows = questions(12)
    for number, steps in enumerate((["unicode"], ["whitespace"], ["repetition"], ["html"]), 1):
        dataset, _ = build(("a", rows), cleaning=[{"step": name} for name in steps])
        os.utime(dataset.path / "manifest.json", (number, number))
        [version] = data_versions(place.store)
        assert [step["step"] for step in version.facts["steps"]] == [*steps, "conversation"]
        assert chosen_version(place.store, dataset.digest) == version
        assert dataset.steps == version.facts["steps"]
    assert len(list(place.store.entries("dataset"))) == 4
    assert len(find_record([version], rows[0]["instruction"][:60])) == 1
