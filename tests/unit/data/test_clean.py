import random
from collections import Counter

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.twins import folded
from tasks.data.clean import DUPLICATE, EMPTY_ANSWER, LONG_ROW, SHORT_ANSWER, clean
from tasks.data.rows import answer_of, build_row, instruction_messages

DATA = DataSection(min_answer_chars=3, max_row_chars=40)


def row(prompt, answer, source="a.jsonl"):
    return build_row(instruction_messages(prompt, None, answer), source, "default")


def test_text_is_composed_ends_lines_with_a_line_feed_and_has_no_white_space_at_the_end():
    messy = row("Say cafe\u0301\r\nnow\rplease \n", "  cafe\u0301 \t\n")
    [cleaned] = clean([messy], DATA).rows
    assert [message["content"] for message in cleaned["messages"]] == ["Say caf\u00e9\nnow\nplease", "  caf\u00e9"]


def test_the_id_is_that_of_the_cleaned_messages():
    [cleaned] = clean([row("Say it. ", "yes\n")], DATA).rows
    assert cleaned["id"] == row("Say it.", "yes")["id"]


def test_cleaning_keeps_source_slice_weight_and_meta():
    given = {**row("Say it.", "yes"), "slice": "chat", "weight": 0.5, "meta": {"file": "x"}}
    [cleaned] = clean([given], DATA).rows
    assert cleaned == given


@pytest.mark.parametrize(
    ("prompt", "answer", "reason"),
    [
        ("Say it.", "", EMPTY_ANSWER),
        ("Say it.", " \n\t", EMPTY_ANSWER),
        ("Say it.", " no ", SHORT_ANSWER),
        ("x" * 38, "yes", LONG_ROW),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_rejected_with_its_reason(prompt, answer, reason):
    sifted = clean([row(prompt, answer)], DATA)
    assert sifted.rows == []
    [record] = sifted.rejected
    assert (record["reason"], record["source"]) == (reason, "a.jsonl")
    assert record["row"]["messages"][0]["content"] == prompt


def test_rows_exactly_at_the_limits_are_kept():
    assert len(clean([row("x" * 37, "yes")], DATA).rows) == 1


def test_of_rows_that_differ_in_case_and_white_space_one_is_kept():
    same = [row("Say  it.", "Yes."), row("say it.", "yes."), row(" SAY\nIT.", "YES.")]
    sifted = clean(same, DATA)
    [kept] = sifted.rows
    assert Counter(record["reason"] for record in sifted.rejected) == {DUPLICATE: 2}
    assert {record["detail"] for record in sifted.rejected} == {f"of row {kept['id']}"}


def test_rows_that_differ_in_the_answer_are_no_duplicates():
    assert len(clean([row("Say it.", "yes"), row("Say it.", "never")], DATA).rows) == 2


def test_a_rejected_row_does_not_make_another_one_a_duplicate():
    """The long spelling is rejected for its length; the short one of the same conversation stays."""
    sifted = clean([row("x" + " " * 50 + "y", "yes"), row("x y", "yes")], DATA)
    assert [answer_of(kept) for kept in sifted.rows] == ["yes"]
    assert [record["reason"] for record in sifted.rejected] == [LONG_ROW]


def test_the_result_does_not_depend_on_the_order_of_the_rows():
    rows = [row(f"Say {n % 7}{' ' * (n % 3)}.", "yes" * (n % 2), source=f"{n % 5}.jsonl") for n in range(60)]
    expected = clean(rows, DATA)
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert clean(shuffled, DATA) == expected


def test_roles_are_part_of_the_folded_conversation():
    user = [{"role": "user", "content": "A"}]
    assert folded(user) == folded([{"role": "user", "content": " a "}])
    assert folded(user) != folded([{"role": "system", "content": "A"}])
