"""One file of rows through the cleaning line, and the index that is made of it."""

import gc
import json
import time

import numpy as np
import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of, read_jsonl
from tasks.contracts.twins import folded
from tasks.data.chunk import clean_chunk
from tasks.data.cleaning.line import Line
from tasks.data.division.index import SOURCES, IndexedFile, join_indexes
from tasks.data.lines import LineReader
from tasks.data.records.erasure import marks_of
from tasks.data.rows import answer_of, build_row, id_of, row_line

STEPS = [{"step": "unicode"}, {"step": "whitespace"}]


def row(prompt, answer, **changes):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {**build_row(messages, "a.jsonl", "default"), **changes}


@pytest.fixture
def clean(tmp_path):
    """Clean rows and return the result, the rows that were kept, and the records of the others."""

    def run(*rows, erased=(), **settings):
        (tmp_path / "erased.json").write_text(json.dumps(list(erased)))
        (tmp_path / "rows.jsonl").write_bytes(b"".join(map(row_line, rows)))
        job = {
            "rows": str(tmp_path / "rows.jsonl"),
            "out": str(tmp_path / "out"),
            "steps": STEPS,
            "tokenizer": None,
            "min_answer_chars": 1,
            "max_row_chars": 6_000,
            "erased": str(tmp_path / "erased.json") if erased else None,
            "similarity": 0,
            **settings,
        }
        result = clean_chunk(job)
        return result, list(read_jsonl(tmp_path / "out.rows")), list(read_jsonl(tmp_path / "out.dropped"))

    return run


def test_the_id_is_that_of_the_cleaned_messages_and_the_rest_stays(clean):
    given = row("Say  it.", "cafe\u0301\r\n", slice="chat", weight=0.5, meta={"file": "x"})
    result, [kept], dropped = clean(given)
    assert answer_of(kept) == "caf\u00e9"
    assert kept["id"] == row("Say  it.", "caf\u00e9")["id"] != given["id"]
    assert (kept["slice"], kept["weight"], kept["meta"]) == ("chat", 0.5, {"file": "x"})
    assert (result["read"], result["kept"], result["dropped"], dropped) == (1, 1, {}, [])


@pytest.mark.parametrize(
    ("prompt", "answer", "reason", "detail"),
    [
        ("Say it.", " \n\t", "empty answer", "the answer has no text"),
        ("Say it.", " no ", "answer too short", "2 characters, data.min_answer_chars is 3"),
        ("x" * 38, "yes", "row too long", "41 characters, data.max_row_chars is 40"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_dropped_with_its_reason(clean, prompt, answer, reason, detail):
    result, kept, [record] = clean(row(prompt, answer), min_answer_chars=3, max_row_chars=40)
    assert kept == []
    assert (record["reason"], record["detail"], record["source"]) == (reason, detail, "a.jsonl")
    assert record["row"]["messages"][0]["content"] == prompt
    assert (result["read"], result["kept"], result["dropped"]) == (1, 0, {reason: 1})


def test_rows_exactly_at_the_limits_are_kept(clean):
    assert clean(row("x" * 37, "yes"), min_answer_chars=3, max_row_chars=40)[0]["kept"] == 1


def test_what_was_erased_is_dropped_and_not_kept_in_the_record(clean):
    secret = row("Who is it?", "Ada Lovelace")
    result, kept, [record] = clean(row("WHO  is it?", "ADA LOVELACE"), row("Else?", "yes"), erased=marks_of(secret))
    assert [answer_of(each) for each in kept] == ["yes"]
    assert result["dropped"] == {"erased": 1}
    assert record["row"] is None
    assert "LOVELACE" not in str(record).upper()


def test_what_becomes_an_erased_record_only_by_cleaning_is_dropped_too(clean):
    secret = row("Who is it?", "caf\u00e9")
    assert clean(row("Who is it?", "cafÃ©"), erased=[secret["id"]])[0]["dropped"] == {"erased": 1}


def test_the_index_leads_back_to_every_row_and_tells_equal_ones(clean, tmp_path):
    rows = [row("A b", "c"), row("a  B", "C"), row("A b", "other", slice="chat"), row("文本", "回答")]
    result, kept, _ = clean(*rows, similarity=0.8)
    index = join_indexes(
        [IndexedFile(tmp_path / "out.rows", tmp_path / "out.rows.npz", tuple(result["slices"]), SOURCES)]
    )
    with LineReader(index.files) as reader:
        for number, each in enumerate(kept):
            assert reader.read(
                int(index.file[number]), int(index.offset[number]), int(index.length[number])
            ) == row_line(each)
            assert index.id_of(number) == each["id"]
    assert [index.slices[code] for code in index.slice] == ["default", "default", "chat", "default"]
    assert np.array_equal(index.conversation[0], index.conversation[1])
    assert np.array_equal(index.prompt[0], index.prompt[2])
    assert not np.array_equal(index.conversation[0], index.conversation[2])
    assert index.rank.tolist() == np.argsort(np.argsort([each["id"] for each in kept])).tolist()


def test_the_folded_prompt_is_the_beginning_of_the_folded_conversation():
    """The chunk folds a conversation once and cuts the prompt off it."""
    messages = [
        {"role": "system", "content": " Be  kind\n"},
        {"role": "user", "content": "\tCafe\u0301 "},
        {"role": "assistant", "content": " OK "},
    ]
    assert folded(messages).startswith(folded(messages[:-1]) + " \0assistant ")
    assert digest_of(folded(messages)) == digest_of(folded([{**m, "content": m["content"].upper()} for m in messages]))
    assert folded(messages[:1]) != folded([{**messages[0], "role": "user"}])


def test_a_preference_pair_is_another_record_with_another_rejected_answer(clean):
    messages = row("Q?", "A")["messages"]
    pairs = [build_row(messages, "a", "default", rejected=text) for text in ("no", "never")]
    result, kept, _ = clean(*pairs)
    assert result["kept"] == 2
    assert len({each["id"] for each in kept}) == 2
    assert [each["rejected"] for each in kept] == ["no", "never"]


def test_the_rejected_answer_counts_for_length_and_tells_pairs_apart(clean):
    messages = row("Q?", "1")["messages"]
    one = build_row(messages, "a", "default", rejected="23")
    other = build_row([messages[0], {**messages[1], "content": "12"}], "a", "default", rejected="3")
    result, _, _ = clean(one, other, build_row(messages, "a", "default", rejected="x" * 99), max_row_chars=40)
    assert (result["kept"], result["dropped"]) == (2, {"row too long": 1})


def test_a_record_that_a_step_makes_the_erased_one_and_another_drops_is_not_kept(clean):
    secret = row("Who is it?", "caf\u00e9 au lait")
    steps = [{"step": "unicode"}, {"step": "blocked", "words": ["lait"]}]
    result, _, [record] = clean(row("Who is it?", "cafÃ© au lait"), erased=marks_of(secret), steps=steps)
    assert (result["dropped"], record["row"]) == ({"erased": 1}, None)


def test_what_is_dropped_for_personal_data_leaves_no_text(clean):
    steps = [{"step": "personal", "action": "drop"}]
    _, kept, [record] = clean(row("Call 13800138000 or ada@example.org", "yes"), row("Else?", "no"), steps=steps)
    assert len(kept) == 1
    assert (record["reason"], record["row"]) == ("personal data", None)
    assert "13800138000" not in str(record)


BLOCKED = {"step": "blocked", "words": ["spam"]}
PERSONAL = {"step": "personal"}


@pytest.mark.parametrize("steps", [[BLOCKED, PERSONAL], [BLOCKED, {"step": "whitespace"}, PERSONAL]])
def test_a_row_that_never_came_to_the_personal_step_is_kept_with_pseudonyms(clean, steps):
    result, _, [record] = clean(row("spam for ada@example.org?", "Call 13800138000, ada@example.org"), steps=steps)
    assert [message["content"] for message in record["row"]["messages"]] == [
        "spam for <EMAIL_1>?",
        "Call <PHONE_1>, <EMAIL_1>",
    ]
    assert record["row"]["id"] == id_of(record["row"]["messages"])
    assert (record["reason"], result["dropped"]) == ("blocked word", {"blocked word": 1})
    assert result["steps"]["personal"] == {"changed": 0, "dropped": 0}


@pytest.mark.parametrize("action", ["drop", "block"])
def test_text_that_a_later_step_would_drop_or_refuse_is_not_kept(clean, action):
    steps = [BLOCKED, {**PERSONAL, "action": action}]
    result, _, records = clean(row("spam for ada@example.org?", "yes"), row("spam?", "yes"), steps=steps)
    assert result["dropped"] == {"blocked word": 2}
    assert sorted(record["row"] is None for record in records) == [False, True]
    assert "ada" not in str(records)


def test_a_row_dropped_between_two_personal_steps_is_kept_as_the_second_leaves_it(clean):
    steps = [{**PERSONAL, "kinds": ["email"]}, BLOCKED, {**PERSONAL, "kinds": ["phone"]}]
    _, _, [record] = clean(row("spam for ada@example.org?", "Call 13800138000"), steps=steps)
    assert [message["content"] for message in record["row"]["messages"]] == ["spam for <EMAIL_1>?", "Call <PHONE_1>"]


def test_a_row_dropped_after_the_personal_step_has_the_id_of_the_text_that_is_shown(clean):
    given = row("spam for ada@example.org?", "yes")
    _, _, [record] = clean(given, steps=[PERSONAL, BLOCKED])
    assert record["row"]["id"] == id_of(record["row"]["messages"]) != given["id"]


def test_without_a_personal_step_a_dropped_row_is_kept_as_it_is(clean):
    given = row("spam for ada@example.org?", "yes")
    _, _, [record] = clean(given, steps=[BLOCKED])
    assert record["row"] == given


def test_an_erased_row_is_recognised_before_it_gets_pseudonyms(clean):
    secret = row("caf\u00e9 spam for ada@example.org?", "yes")
    steps = [{"step": "unicode"}, BLOCKED, PERSONAL]
    result, _, _ = clean(row("cafÃ© spam for ada@example.org?", "yes"), erased=marks_of(secret), steps=steps)
    assert result["dropped"] == {"erased": 1}


@pytest.mark.parametrize("steps", [[], [BLOCKED]])
def test_an_erased_row_in_another_case_is_recognised_also_if_it_is_too_long(clean, steps):
    secret = row("Who is it?", "Ada Lovelace of L\u00f6ndon, no spam" + " indeed" * 20)
    shouted = row("WHO  IS IT?", answer_of(secret).upper())
    result, _, [record] = clean(shouted, erased=marks_of(secret), max_row_chars=50, steps=steps)
    assert (result["dropped"], record["row"]) == ({"erased": 1}, None)


@pytest.mark.parametrize(("steps", "reason"), [([], "row too long"), ([BLOCKED], "blocked word")])
def test_a_long_row_that_cannot_be_folded_in_time_is_kept_without_text_where_something_was_erased(clean, steps, reason):
    flood = row("Who is it?", "spam e" + "\u0301\u0316" * 60_000)  # folding it takes half a minute
    began = time.perf_counter()
    result, _, [record] = clean(flood, erased=["00" * 32], steps=steps)
    assert (result["dropped"], record["row"]) == ({reason: 1}, None)
    assert "too many combining marks" in record["detail"]
    result, _, [record] = clean(flood, steps=steps)
    assert (result["dropped"], record["row"]) == ({reason: 1}, flood)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_search_for_cycles_is_as_it_was_however_a_job_ends(clean, monkeypatch, was_enabled):
    seen = []
    run = Line.run
    monkeypatch.setattr(Line, "run", lambda *arguments: seen.append(gc.isenabled()) or run(*arguments))
    before = gc.isenabled()
    try:
        (gc.enable if was_enabled else gc.disable)()
        clean(row("Say it.", "yes"))
        assert gc.isenabled() == was_enabled
        with pytest.raises(DataError, match="holds personal data"):
            clean(row("Say it.", "ada@example.com"), steps=[{"step": "personal", "action": "block"}])
        assert gc.isenabled() == was_enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]
