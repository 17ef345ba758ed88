"""Where nothing is left, the error says what took most, and the setting or the step that changes it."""

import pytest
from tiny_model import make_tiny_tokenizer

from tasks.contracts.artifacts import BaseModelRef
from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.data.advice import advice
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.records.erasure import erase, marks_of
from tasks.data.rows import build_row

GERMAN = "Das Haus neben der alten Mühle am Fluss wird im Winter von niemandem bewohnt, nicht einmal von Katzen."
TEXT = "The river runs past the old mill, and in winter the wheel stands still under ice until the thaw of March"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_tiny_tokenizer().save_pretrained(folder)
    return BaseModelRef(folder, "d", "dir:base")


@pytest.fixture
def refusal(place, write_lines, base):
    """Build a data set that has no rows, and return what the error says after its counts."""

    def build(pairs, evaluation=(), **settings):
        def records(rows):
            return [{"instruction": question, "output": answer} for question, answer in rows]

        data = DataSection(
            sources=(write_lines(*records(pairs)),),
            evaluation_sources=(write_lines(*records(evaluation), name="eval.jsonl"),) if evaluation else (),
            **settings,
        )
        rows = ingest(data, place, data.sources)
        held_out = ingest(data, place, data.evaluation_sources) if evaluation else None
        with pytest.raises(DataError) as refused:
            build_dataset(rows, held_out, data, place, base)
        return str(refused.value).rpartition("; ")[2]

    return build


@pytest.mark.parametrize(
    ("pair", "steps", "named"),
    [
        ((GERMAN, GERMAN), [{"step": "language", "keep": ["en"]}], "language"),
        (("What?", "dreadful"), [{"step": "blocked", "words": ["dreadful"]}], "blocked"),
        (("What?", "b"), [{"step": "length", "min_answer_tokens": 50}], "length"),
        (("What?", "b"), [{"step": "length"}, {"step": "length", "max_row_tokens": 1}], "length 2"),
        (
            ("What?", "#1 {}"),
            [{"step": "replace", "name": "tickets {x}", "pattern": "#", "drop": True}],
            "replace:tickets {x}",
        ),
        (("Who?", "ada@example.com"), [{"step": "personal", "action": "drop"}], "personal"),
    ],
)
def test_the_step_that_dropped_most_is_named(refusal, pair, steps, named):
    """A length step's reasons are spelled like those of data.min_answer_chars and data.max_row_chars."""
    pairs = [(f"{n} {pair[0]}", f"{pair[1]} {n}") for n in range(3)]
    said = refusal(pairs, cleaning=steps)
    assert said == f"the step {named!r} of data.cleaning dropped most (3): loosen it, or add rows"


def test_a_step_that_takes_all_text_away_is_not_taken_for_one_that_drops(refusal):
    said = refusal(
        [("What?", f"{n}") for n in range(3)], cleaning=[{"step": "replace", "name": "all", "pattern": ".+"}]
    )
    assert said.startswith("most (3) have no question or no answer, as they came or after data.cleaning: mend them")


@pytest.mark.parametrize(
    ("pairs", "evaluation", "settings", "said"),
    [
        (
            [("What?", "abc"), ("Why?", "de")],
            (),
            {"min_answer_chars": 9},
            "data.min_answer_chars (9) rejected most (2): lower it",
        ),
        (
            [("What?" * 9, "a"), ("Why?" * 9, "b")],
            (),
            {"max_row_chars": 16},
            "data.max_row_chars (16) rejected most (2): raise it",
        ),
        ([("What?", "a")] * 3, (), {}, "most (2) repeat another row: read rows that differ"),
        (
            [(f"{TEXT} {end}", TEXT) for end in "ab"],
            (),
            {},
            "most (1) nearly repeat another row: raise data.near_duplicates (0.8) or set it to 0",
        ),
        (
            [("What?", "a"), ("what?", "b")],
            (),
            {},
            "most (1) ask what an evaluation row asks: read rows that ask something else",
        ),
        (
            [(f"{TEXT} {end}", f"{end}" * 9) for end in "ab"],
            (),
            {"near_duplicates": 0.7},
            "most (1) are nearly what is evaluated: raise data.near_duplicates (0.7) or set it to 0",
        ),
        (
            [("What?", "a"), ("Why?", "b")],
            [("Who?", "")],
            {},
            "most (1) have no question or no answer, as they came or after data.cleaning: mend them, or the steps",
        ),
    ],
    ids=["short", "long", "equal", "near", "twin", "near twin", "an evaluation set of one's own"],
)
def test_what_took_most_is_told_with_its_setting(refusal, pairs, evaluation, settings, said):
    assert refusal(pairs, evaluation, **settings) == f"{said}, or add rows"


def test_erased_rows_are_told(refusal, place):
    for n in range(2):
        messages = [{"role": "user", "content": f"What {n}?"}, {"role": "assistant", "content": "That."}]
        erase(place.home, marks_of(build_row(messages, "rows.jsonl", "default")), "asked for")
    assert refusal([("What 0?", "That."), ("What 1?", "That.")]) == "most (2) were erased, or add rows"


def test_one_row_that_nothing_rejected_asks_for_more(refusal):
    assert refusal([("What?", "That.")]) == "add rows"


def test_what_took_most_wins_over_what_took_some():
    results = [{"steps": {"language": {"changed": 0, "dropped": 3}}, "limits": {"answer too short": 5}}]
    rejected = {"other language": 3, "answer too short": 5, "near duplicate": 4}
    assert advice(rejected, 2, results, DataSection()).startswith("data.min_answer_chars (1) rejected most (5)")
    assert advice(rejected, 6, results, DataSection()).startswith("most (6) are no usable records")
