import copy
import pickle

import pytest
from pydantic import TypeAdapter
from tiny_model import make_tiny_tokenizer

from tasks.contracts.cleaning_config import (
    DEFAULT_STEPS,
    BlockedStep,
    CleaningStep,
    HtmlStep,
    LanguageStep,
    LengthStep,
    PersonalStep,
    RepetitionStep,
    ReplaceStep,
    TermsStep,
    UnicodeStep,
    WhitespaceStep,
)
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.line import build_line
from tasks.data.cleaning.step import Dropped
from tasks.data.rows import id_of

EVERY_STEP = (
    UnicodeStep(width=True),
    HtmlStep(),
    ReplaceStep(name="signature", pattern="(?m)^-- .*$"),
    WhitespaceStep(collapse_spaces=True),  # after the steps that leave white space behind
    TermsStep(terms={"心肌梗塞": "心肌梗死"}),
    LengthStep(min_answer_tokens=2, max_row_tokens=400),
    LanguageStep(keep=("en", "zh")),
    RepetitionStep(),
    BlockedStep(words=("scam", "赌博")),
    PersonalStep(),
)

ANSWERS = [
    "Take the tablets after meals and call the doctor if the pain does not go away within three days.",
    "心肌梗塞患者应卧床休息，尽快就医，完善心电图检查。",
    "ＡＢ１  schÃ¶n<br>done\r\n\r\n\r\n\r\n\r\nend\n-- Bob",
    "-- only a signature",
    "",
    "a",
    "网络赌博",
    "I am sorry. " * 9,
    "Nehmen Sie die Tabletten zweimal täglich nach dem Essen ein und gehen Sie danach bald zum Arzt.",
    "word " * 900,
    "Write to jane.doe@example.org please, and do not wait for an answer.",
    "<b>bold</b> move",
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def rows(row_of):
    rows = [row_of(answer, question=f"{question} {number}?") for number, answer in enumerate(ANSWERS)
            for question in ("What should the patient do now", "患者现在应该怎么办呢")]  # fmt: skip
    return [*rows, row_of("yes <b>it</b> is.", rejected="yes it is."), row_of("yes it is.", rejected="no <b>way</b>")]


def test_every_row_is_kept_or_dropped_once_and_the_counts_close(rows, tokenizer_folder):
    cleaned = build_line(EVERY_STEP, tokenizer_folder).run(rows)
    assert len(cleaned.kept) + len(cleaned.dropped) == len(rows)
    dropped = [name for _, _, name in cleaned.dropped]
    assert {name: counts["dropped"] for name, counts in cleaned.counts.items() if counts["dropped"]} == {
        name: dropped.count(name) for name in dropped
    }
    assert set(dropped) >= {"length", "language", "repetition", "blocked", "conversation"}
    assert list(cleaned.counts) == [
        *("unicode", "html", "replace:signature", "whitespace", "terms", "length", "language", "repetition"),
        *("blocked", "personal", "conversation"),
    ]
    assert cleaned.counts["terms"] == {"changed": 2, "dropped": 0}
    assert cleaned.counts["html"]["changed"] == 6


def test_rows_in_one_batch_have_the_result_of_rows_one_by_one_and_are_never_mutated(rows, tokenizer_folder):
    before = copy.deepcopy(rows)
    line = build_line(EVERY_STEP, tokenizer_folder)
    whole = line.run(rows)
    single = [line.run([row]) for row in rows]
    assert rows == before
    assert whole.kept == [row for cleaned in single for row in cleaned.kept]
    key = str
    assert sorted(whole.dropped, key=key) == sorted((drop for cleaned in single for drop in cleaned.dropped), key=key)
    for name, counts in whole.counts.items():
        assert counts == {key: sum(cleaned.counts[name][key] for cleaned in single) for key in counts}


def test_unchanged_rows_are_the_same_objects_and_changed_ones_have_the_id_of_their_messages(rows, tokenizer_folder):
    rows = [{**row, "weight": 0.5, "slice": "chat", "meta": {"file": "x"}} for row in rows]
    cleaned = build_line(EVERY_STEP, tokenizer_folder).run(rows)
    assert rows[0] in cleaned.kept and any(row is rows[0] for row in cleaned.kept)
    changed = [row for row in cleaned.kept if not any(row is given for given in rows)]
    assert len(changed) >= 5
    for row in cleaned.kept:
        assert row["id"] == id_of(row["messages"], row.get("rejected"))
        assert (row["weight"], row["slice"], row["meta"], row["source"]) == (0.5, "chat", {"file": "x"}, "a.jsonl")


def test_a_second_pass_changes_nothing(rows, tokenizer_folder):
    line = build_line(EVERY_STEP, tokenizer_folder)
    once = line.run(rows).kept
    again = line.run(once)
    assert again.kept == once
    assert all(counts == {"changed": 0, "dropped": 0} for counts in again.counts.values())


def test_a_dropped_row_is_shown_as_it_came_to_the_step_that_dropped_it(row_of):
    line = build_line((HtmlStep(), BlockedStep(words=("scam",))), None)
    [(row, dropped, name)] = line.run([row_of("<b>scam</b>")]).dropped
    assert row["messages"][-1]["content"] == "scam"
    assert (dropped, name) == (Dropped("blocked word", "scam"), "blocked")


def test_what_the_steps_leave_without_text_is_dropped_at_the_end(row_of):
    line = build_line((ReplaceStep(name="all", pattern="x+"),), None)
    rows = [row_of("xxx"), row_of("yes", question="x"), row_of("yes", rejected="yexs"), row_of(" \n"), row_of("xyes")]
    cleaned = line.run(rows)
    assert [dropped.reason for _, dropped, _ in cleaned.dropped] == [
        "empty answer",
        "blank user message",
        "chosen and rejected are the same",
        "empty answer",
    ]
    assert cleaned.counts["conversation"] == {"changed": 0, "dropped": 4}
    assert [row["messages"][-1]["content"] for row in cleaned.kept] == ["yes"]


def test_the_rejected_answer_of_a_preference_pair_is_cleaned_too(row_of):
    pair = row_of("yes", rejected="no  \r\n")
    [row] = build_line(DEFAULT_STEPS, None).run([pair]).kept
    assert row == {**pair, "rejected": "no", "id": id_of(pair["messages"], "no")}


def test_steps_of_one_kind_have_names_of_their_own():
    sections = (TermsStep(terms={"a": "b"}), TermsStep(terms={"b": "c"}), ReplaceStep(name="x", pattern="x"))
    line = build_line((*sections, ReplaceStep(name="x", pattern="y"), UnicodeStep(), UnicodeStep()), None)
    names = list(line.run([]).counts)
    assert names == ["terms", "terms 2", "replace:x", "replace:x 2", "unicode", "unicode 2", "conversation"]


def test_no_rows_and_no_steps_are_no_problem(rows, tokenizer_folder):
    assert build_line(EVERY_STEP, tokenizer_folder).run([]).kept == []
    kept = build_line((), None).run(rows).kept
    assert all(any(row is given for given in rows) for row in kept)


def test_a_line_is_rebuilt_in_another_process_from_its_configuration(rows, tokenizer_folder):
    steps = TypeAdapter(tuple[CleaningStep, ...])
    described = steps.dump_python(EVERY_STEP, mode="json")
    again = steps.validate_python(pickle.loads(pickle.dumps(described)))
    assert again == EVERY_STEP
    first, second = (build_line(sections, tokenizer_folder).run(rows) for sections in (EVERY_STEP, again))
    assert first == second


def test_personal_data_that_was_found_is_counted_by_kind(row_of):
    line = build_line((PersonalStep(),), None)
    line.run([row_of("Write to jane.doe@example.org please.")])
    assert line.found == {"email": 1}


@pytest.mark.parametrize(
    "section", [ReplaceStep(name="x", pattern="("), LanguageStep(keep=("xx",)), LengthStep(), BlockedStep(path="/none")]
)
def test_a_section_that_cannot_work_is_refused_when_the_line_is_built(section):
    with pytest.raises(ConfigError):
        build_line((section,), None)


def test_a_replace_step_does_one_thing():
    with pytest.raises(ValueError, match="both drop and a replacement"):
        ReplaceStep(name="x", pattern="x", replacement="y", drop=True)
