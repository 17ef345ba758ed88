"""Turns of one dialogue in several rows: one cluster, unless what they share only opens dialogues."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.twins import folded
from tasks.data.chunk import clean_chunk
from tasks.data.division.index import FROZEN, SHADOW, SOURCES, IndexedFile, join_indexes
from tasks.data.division.split import DUPLICATE, NEAR_DUPLICATE, NEAR_TWIN, REASONS, Linked, divide
from tasks.data.division.turns import OPENING_PROMPTS, dialogue_links
from tasks.data.rows import build_row, row_line


def said(*texts, system=None, rejected=None):
    """Return a row of a dialogue, whose users and assistants take turns."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    opening = [{"role": "system", "content": system}] if system else []
    return build_row(opening + messages, "a.jsonl", "default", rejected=rejected)


@pytest.fixture
def index_of(tmp_path):
    """Index rows, a file for each list of them."""

    def run(*files):
        parts = []
        for number, rows in enumerate(files):
            (tmp_path / "rows.jsonl").write_bytes(b"".join(map(row_line, rows)))
            out = tmp_path / f"out-{number}"
            job = {"rows": str(tmp_path / "rows.jsonl"), "out": str(out), "steps": [], "tokenizer": None}
            limits = {"min_answer_chars": 1, "max_row_chars": 6_000, "erased": [], "similarity": 0}
            result = clean_chunk({**job, **limits})
            parts.append(
                IndexedFile(
                    out.with_suffix(".rows"), tmp_path / f"{out.name}.rows.npz", tuple(result["slices"]), SOURCES
                )
            )
        return join_indexes(parts)

    return run


def links_of(index):
    """Return the links between different rows, each as a sorted pair."""
    left, right = dialogue_links(index, np.arange(len(index)))
    return {(min(pair), max(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}


def test_each_turn_is_linked_to_the_longest_row_that_it_continues(index_of):
    first, second, third = said("u1", "a1"), said("u1", "a1", "u2", "a2"), said("u1", "a1", "u2", "a2", "u3", "a3")
    assert links_of(index_of([third, first, said("other", "a1"), second])) == {(0, 3), (1, 3)}
    assert links_of(index_of([second], [third])) == {(0, 1)}, "the first turn need not be there"
    assert links_of(index_of([first], [third])) == {(0, 1)}, "nor one between"


@pytest.mark.parametrize(
    "other",
    [
        said("u1", "another answer", "u2", "a2"),
        said("another question", "a1", "u2", "a2"),
        said("u1 a1", "u2", "u2", "a2"),
        said("u2", "a2"),
        said("u", "1", "u1", "a1"),
    ],
    ids=["answered otherwise", "asked otherwise", "divided otherwise", "the end alone", "the beginning of a word"],
)
def test_what_only_resembles_a_beginning_links_nothing(index_of, other):
    assert links_of(index_of([said("u1", "a1"), other])) == set()


def test_case_and_white_space_do_not_matter(index_of):
    assert links_of(index_of([said("Café one", "YES"), said(" cafe\u0301  ONE", "yes\n", "u2", "a2")])) == {(0, 1)}


def test_the_system_message_does_not_matter_on_either_side(index_of):
    """It may be logged with the first turn only, or tell the time of day."""
    later = said("u1", "a1", "u2", "a2", system="It is ten.")
    assert links_of(index_of([said("u1", "a1"), later])) == {(0, 1)}
    assert links_of(index_of([said("u1", "a1", system="It is nine."), said("u1", "a1", "u2", "a2")])) == {(0, 1)}
    rows = [said("u1", "a1", system="It is nine."), said("u1", "a1", system="Be kind."), later]
    assert {row for pair in links_of(index_of(rows)) for row in pair} == {0, 1, 2}, "all that say what is continued"


def test_a_dialogue_goes_on_from_the_answer_that_was_chosen(index_of):
    pair = said("u1", "good", rejected="bad")
    assert links_of(index_of([pair, said("u1", "good", "u2", "a2")])) == {(0, 1)}
    assert links_of(index_of([pair, said("u1", "bad", "u2", "a2")])) == set()
    assert links_of(index_of([said("u1", "a1"), said("u1", "a1", "u2", "good", rejected="bad")])) == {(0, 1)}


def test_a_question_with_its_answer_takes_no_place_for_turns(index_of):
    turns = index_of([said("u1", "a1"), said("u2", "a2")]).turns
    assert [len(column) for column in (turns.begins_row, turns.begins, turns.said_row, turns.said)] == [0, 0, 0, 0]


def test_what_was_said_is_hashed_as_a_whole_conversation_is(index_of):
    """A beginning of one row has the hash of the whole of another: a folded part is a part of the folded whole."""
    texts = ["ΟΔΟΣ ", "", "\u0301x", " ẞ\u200b", "한국", "end"]
    longer, shorter = said(*texts), said(*texts[:4])
    assert folded(longer["messages"]).startswith(folded(shorter["messages"]))
    index = index_of([shorter, longer])
    assert index.turns.begins_row.tolist() == [0, 1, 1]
    assert (index.turns.begins[2] == index.conversation[0]).all()


@pytest.mark.parametrize("extra", [0, 1])
def test_a_row_that_many_prompts_continue_is_an_opening_and_links_nobody(index_of, extra):
    rows = [said("Hi", "Hello!"), *(said("Hi", "Hello!", f"u{n}", f"a{n}") for n in range(OPENING_PROMPTS + extra))]
    again = [said("Hi", "Hello!", "u0", "another answer to the same")]
    links = links_of(index_of(rows, again))
    assert links == (set() if extra else {(0, row) for row in range(1, len(rows) + 1)})


def test_an_opening_is_not_gone_around_by_a_shorter_row(index_of):
    """What continues an opening is not linked to what the opening itself continues; the opening is."""
    rows = [said("Hi", "Hello!"), said("Hi", "Hello!", "How are you?", "Well.")]
    rows += [said("Hi", "Hello!", "How are you?", "Well.", f"u{n}", f"a{n}") for n in range(OPENING_PROMPTS + 1)]
    assert links_of(index_of(rows)) == {(0, 1)}


class Repeats:
    """Near duplicates as they are told: row → the one that stands for it."""

    def __init__(self, repeats):
        self.repeats = repeats

    def conversations(self, among):
        to = np.arange(len(among))
        for row, other in self.repeats.items():
            to[row] = other
        return Linked(to, np.ones(len(among), np.float32))

    def clusters(self, among):
        return [np.arange(len(among))]


@pytest.mark.parametrize("seed", range(4))
def test_a_dialogue_is_on_one_side_of_the_split(index_of, seed):
    dialogues = [[text for turn in range(3) for text in (f"{n} u{turn}", f"{n} a{turn}")] for n in range(12)]
    rows = [said(*texts[:turns]) for texts in dialogues for turns in (2, 4, 6)]
    division = divide(index_of(rows), None, DataSection(train_rows=100, eval_rows=3, seed=seed))
    evaluated = {int(row) // 3 for row in division.evaluation}
    assert len(evaluated) == len(division.evaluation) == 3
    assert len(division.train) == 27
    assert not evaluated & {int(row) // 3 for row in division.train}
    assert (division.reason == REASONS.index(NEAR_TWIN)).sum() == 6
    assert (division.clusters, division.largest_cluster) == (12, 3)


def test_what_continues_a_row_that_was_dropped_is_linked_to_the_one_that_stayed(index_of):
    """The copy of a near duplicate of another row begins a dialogue: other row and dialogue are one cluster."""
    rows = [said("u1 in other words", "a1"), said("u1", "a1"), said("U1", "a1"), said("u1", "A1", "u2", "a2")]
    rows += [said(f"q{n}", "a") for n in range(8)]
    index = index_of(rows)
    near_row = min((1, 2), key=lambda row: index.rank[row])  # the first of the two equal ones
    division = divide(index, Repeats({near_row: 0}), DataSection(train_rows=100, eval_rows=1))
    assert division.reason[3 - near_row] == REASONS.index(DUPLICATE)
    assert division.reason[near_row] == REASONS.index(NEAR_DUPLICATE)
    assert (division.clusters, division.largest_cluster) == (9, 2)


def test_a_dialogue_whose_turn_was_dropped_is_linked_by_the_one_that_stayed(index_of):
    """Here the longer row is the near duplicate: the row that stands for it says the answer too."""
    rows = [said("u1", "a1"), said("u1", "a1", "u2", "a2"), said("u1!", "a1", "u2", "a2"), said("other", "a")]
    division = divide(index_of(rows), Repeats({1: 2}), DataSection(train_rows=100, eval_rows=1))
    assert (division.clusters, division.largest_cluster) == (2, 2)


@pytest.mark.parametrize("turns", [2, 4])
def test_a_shadow_is_a_turn_of_its_frozen_rows_dialogue(index_of, turns):
    """Row 1 is frozen, row 2 its shadow."""
    texts = ["u1", "a1", "u2", "a2"]
    rows = [said(*texts[: 6 - turns]), said("old u1", *texts[1:turns]), said(*texts[:turns]), said("other", "a")]
    index = replace(
        index_of(rows),
        origin=np.array([SOURCES, FROZEN, SHADOW, SOURCES], np.int8),
        shadows=np.array([[2, 1]]),
    )
    division = divide(index, None, DataSection())
    assert division.evaluation.tolist() == [1]
    assert sorted(division.train) == [3]
