"""A frozen evaluation set under a changed cleaning line: its rows stand, and their records are not trained on."""

import json
import random

import pytest

from tasks.contracts.cleaning_config import (
    BlockedStep,
    CleaningStep,
    LanguageStep,
    LengthStep,
    PersonalStep,
    RepetitionStep,
    ReplaceStep,
    TermsStep,
    UnicodeStep,
)
from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import read_manifest
from tasks.data.build import build_dataset
from tasks.data.division.frozen import rewording_steps
from tasks.data.ingest import ingest
from tasks.data.records.erasure import erase, marks_of

UNICODE, WIDTH = {"step": "unicode"}, {"step": "unicode", "width": True}
TERMS = {"step": "terms", "terms": {"ml": "millilitres", "心肌梗塞": "心肌梗死"}}
near = pytest.mark.parametrize("near_duplicates", [0, 0.8])


def records(count=40):
    """Short rows, of which a changed term is a large part, in English and Chinese."""
    english = [{"instruction": f"Is {n} ml ok?", "output": f"{n * 7} ml is the most."} for n in range(0, count, 2)]
    chinese = [{"instruction": f"心肌梗塞{n}级？", "output": f"第{n}种心肌梗塞。"} for n in range(1, count, 2)]
    return english + chinese


@pytest.fixture
def build(place, write_lines):
    def run(rows, **settings):
        source = write_lines(*rows)
        data = DataSection(
            sources=(source,), **{"train_rows": 500, "eval_rows": 12, "cleaning": (UNICODE,), **settings}
        )
        return build_dataset(ingest(data, place, (source,)), None, data, place)

    return run


def rows_of(dataset, split):
    return list(read_jsonl(dataset.path / f"{split}.jsonl"))


def asked(dataset, split):
    return {row["messages"][0]["content"] for row in rows_of(dataset, split)}


def reworded(text):
    return text.replace("ml", "millilitres").replace("心肌梗塞", "心肌梗死")


@near
@pytest.mark.parametrize(
    "cleaning",
    [(UNICODE, TERMS), (TERMS, {"step": "html"}), (WIDTH, TERMS, {"step": "whitespace", "collapse_spaces": True})],
)
def test_the_record_of_a_frozen_row_is_not_trained_on_in_its_new_wording(build, near_duplicates, cleaning):
    first = build(records(), near_duplicates=near_duplicates)
    second = build(records(), near_duplicates=near_duplicates, frozen_evaluation=first.digest, cleaning=cleaning)
    assert rows_of(second, "eval") == rows_of(first, "eval"), "evaluated as they stand"
    assert second.eval_digest == first.eval_digest
    held_out = {reworded(text) for text in asked(first, "eval")}
    assert len(held_out) == first.eval_rows
    assert second.train_rows
    assert not held_out & asked(second, "train")


def test_a_frozen_row_and_its_shadow_are_counted_once_and_the_record_names_the_row(build):
    first = build(records(), near_duplicates=0)
    second = build(records(), near_duplicates=0, frozen_evaluation=first.digest, cleaning=(UNICODE, TERMS))
    assert (second.rows_read, second.eval_rows, second.train_rows) == (52, 12, 28)
    assert second.rejected == {"twin of an evaluation row": 12}
    facts = read_manifest(second.path)["facts"]
    assert facts["origins"]["data.frozen_evaluation"] == {
        "rows_read": 12,
        "train_rows": 0,
        "eval_rows": 12,
        "rejected": {},
    }
    assert set(facts["origins"]) == {"data.sources", "data.frozen_evaluation"}
    assert (facts["clusters"], facts["largest_cluster"]) == (40, 2)
    assert [step["changed"] for step in second.steps if step["step"] == "terms"] == [40]
    frozen = {row["id"]: row["messages"][0]["content"] for row in rows_of(second, "eval")}
    named = {}
    for record in read_jsonl(second.path / "rejected.jsonl"):
        before, identity, after = record["detail"].partition(record["detail"][26:90])
        assert (before, after) == ("the prompt is that of row ", ", cleaned as today")
        named[identity] = record["row"]["messages"][0]["content"]
    assert named == {identity: reworded(text) for identity, text in frozen.items()}
    report = json.loads((second.path / "contamination.json").read_text())
    assert (report["evaluation_rows"], report["removed_from_training"]) == (12, {"twins": 12, "near_twins": 0})
    assert {example["evaluation_row"] for example in report["examples"]["twins"]} == set(frozen)


def test_a_frozen_row_whose_wording_stays_is_named_without_a_word_about_cleaning(build):
    first = build(records())
    second = build(records(), frozen_evaluation=first.digest)
    details = [r["detail"] for r in read_jsonl(second.path / "rejected.jsonl") if r["reason"].startswith("twin")]
    assert len(details) == 12
    assert not any("cleaned" in detail for detail in details)


def test_a_paraphrase_of_the_new_wording_is_not_trained_on(build):
    """The new wording is far from the frozen one, and the source row is only near to the new one."""
    draw = random.Random(1)

    def sentence(words):
        return " ".join("".join(draw.choices("abcdefgh", k=6)) for _ in range(words))

    terms = {f"term{n}": sentence(2) for n in range(30)}
    asks = [" ".join(draw.sample(sorted(terms), 15)) for _ in range(10)]
    first = build([{"instruction": ask, "output": sentence(20)} for ask in asks], eval_rows=3)
    again = [{"instruction": f"{ask} {sentence(1)}", "output": sentence(20)} for ask in asks]
    steps = ({"step": "terms", "terms": terms},)
    second = build(again, frozen_evaluation=first.digest, cleaning=steps)
    assert (second.train_rows, second.rejected) == (7, {"near twin of an evaluation row": 3})


def test_a_later_turn_in_the_new_wording_is_not_trained_on(build):
    chats = [
        [{"role": "user", "content": f"{n} ml?"}, {"role": "assistant", "content": f"{n} ml it is."}] for n in range(20)
    ]
    more = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    first = build([{"messages": chat} for chat in chats], eval_rows=4, near_duplicates=0)
    steps = (TERMS,)
    later = [{"messages": chat + more} for chat in chats]
    second = build(later, near_duplicates=0, frozen_evaluation=first.digest, cleaning=steps)
    assert (second.train_rows, second.rejected) == (16, {"near twin of an evaluation row": 4})


def test_a_source_row_spelled_as_the_frozen_row_is_kept_out_whatever_the_line_makes_of_it(build):
    """What was frozen is put among the sources as it stands, beside its record in another spelling."""
    first = build(records(), near_duplicates=0, cleaning=(UNICODE, TERMS))
    frozen = [{"messages": row["messages"]} for row in rows_of(first, "eval")]
    shout = {"step": "replace", "name": "shout", "pattern": "millilitres|死", "replacement": "!!"}
    second = build([*records(), *frozen], near_duplicates=0, frozen_evaluation=first.digest, cleaning=(TERMS, shout))
    assert (second.eval_digest, second.train_rows) == (first.eval_digest, 28)
    assert second.rejected == {"twin of an evaluation row": 12, "exact duplicate": 12}


@pytest.mark.parametrize("action", ["block", "drop"])
def test_personal_data_in_a_frozen_row_neither_stops_the_run_nor_takes_the_row_out(build, action):
    """It was evaluated before and is not trained on; in a row of the sources it is treated as ever."""
    rows = [{"instruction": f"Call {13800138000 + n}, {n}?", "output": f"Called {n}."} for n in range(10)]
    first = build(rows, eval_rows=3)
    clean = [{"instruction": f"Call somebody, {n}?", "output": f"Called nobody {n}."} for n in range(10)]
    steps = (UNICODE, {"step": "personal", "action": action})
    second = build(clean, frozen_evaluation=first.digest, cleaning=steps)
    assert rows_of(second, "eval") == rows_of(first, "eval")
    assert second.rejected == {}
    if action == "block":
        with pytest.raises(DataError, match="has the action block"):
            build(rows, frozen_evaluation=first.digest, cleaning=steps)


def test_the_record_of_a_frozen_row_is_recognised_with_pseudonyms(build):
    rows = [{"instruction": f"Call {13800138000 + n}, {n}?", "output": f"Called {n}."} for n in range(10)]
    first = build(rows, eval_rows=3, near_duplicates=0)
    second = build(
        rows, frozen_evaluation=first.digest, cleaning=({"step": "personal"},), near_duplicates=0, eval_rows=1
    )
    assert (second.eval_rows, second.train_rows, second.rejected) == (3, 7, {"twin of an evaluation row": 3})


def test_what_todays_line_would_drop_is_evaluated_and_compared_all_the_same(build):
    """Half of the frozen rows are without words today and have no shadow, the others are blocked."""
    signs = [{"instruction": "§" * count, "output": "A sign."} for count in range(1, 11)]
    first = build([*signs, *records(20)[10:]], eval_rows=6, near_duplicates=0)
    assert {text[0] for text in asked(first, "eval")} == {"§", "心"}
    steps = (
        {"step": "replace", "name": "signs", "pattern": "§", "replacement": ""},
        TERMS,
        {"step": "blocked", "words": ["心肌梗死"]},
    )
    second = build([*signs, *records(20)], frozen_evaluation=first.digest, cleaning=steps, near_duplicates=0)
    assert rows_of(second, "eval") == rows_of(first, "eval")
    assert second.rejected == {"blank user message": 10, "blocked word": 10}
    assert len(list(read_jsonl(second.path / "rejected.jsonl"))) == 20
    assert second.train_rows == 10


def test_an_erased_frozen_row_is_gone_with_its_shadow(build, place):
    first = build(records(), near_duplicates=0)
    forgotten, *left = rows_of(first, "eval")
    erase(place.home, marks_of(forgotten), "asked for")
    second = build(records(), near_duplicates=0, frozen_evaluation=first.digest, cleaning=(TERMS,))
    assert rows_of(second, "eval") == left
    assert second.rejected == {"erased": 2, "twin of an evaluation row": 11}
    texts = "".join(path.read_text() for path in second.path.iterdir())
    assert forgotten["messages"][1]["content"] not in texts


def test_only_steps_that_change_words_make_shadows():
    """A step of a kind that is new here must be sorted: does it change words, or only drop rows?"""
    keep = [UnicodeStep(), TermsStep(terms={"a": "b"}), ReplaceStep(name="x", pattern="x"), PersonalStep()]
    drop = [
        LengthStep(),
        LanguageStep(keep=("en",)),
        RepetitionStep(),
        BlockedStep(words=("x",)),
        ReplaceStep(name="x", pattern="x", drop=True),
        PersonalStep(action="drop"),
        PersonalStep(action="block"),
    ]
    assert rewording_steps((*drop, *keep)) == tuple(keep)
    kinds = {*map(type, keep + drop)}
    assert {kind.__name__ for kind in CleaningStep.__args__[0].__args__} - {kind.__name__ for kind in kinds} == {
        "HtmlStep",
        "WhitespaceStep",
    }
