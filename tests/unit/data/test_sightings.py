"""Where versions have a record: by the beginning of its id, and by text in whatever is kept of it."""

import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.store import Entry
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.records.pieces import piece_id
from tasks.data.records.sightings import find_record, the_record, with_lines
from tasks.data.rows import build_row, row_line
from tasks.data.versions import chosen_version, rows_of

RECORDS = [{"instruction": f"Who is number {n}?", "output": f"Person {n} of them"} for n in range(12)]


@pytest.fixture
def build(place, write_lines, data_of):
    """Build a data version of some records beside the twelve."""

    def run(*records, **settings):
        data = data_of(write_lines(*RECORDS, *records), eval_rows=3, **settings)
        dataset = build_dataset(ingest(data, place, data.sources), None, data, place)
        return chosen_version(place.store, dataset.digest)

    return run


def test_a_row_is_found_by_the_beginning_of_its_id(build):
    version = build()
    row = next(rows_of(version, "train"))
    [seen] = find_record([version], row["id"][:16])
    assert (seen.version, seen.where, seen.reason, seen.row) == (version.digest, "train", "", row)
    assert (seen.record_id, seen.found_in, seen.passage) == (row["id"], "id", "")


def test_a_row_is_found_by_its_text_wherever_it_went(build):
    version = build({"instruction": "And?", "output": " "})
    assert {seen.where for seen in find_record([version], "Who is number")} == {"train", "eval"}
    [seen] = find_record([version], "And?")
    assert (seen.where, seen.reason, seen.found_in) == ("rejected", "empty answer", "messages")
    assert find_record([version], "no such text") == []


def test_a_piece_that_never_became_a_row_is_found_by_its_text_and_its_id(build):
    version = build({"bad": "qqq"})
    [seen] = find_record([version], "qqq")
    assert (seen.where, seen.reason, seen.row) == ("rejected", "not a usable conversation", None)
    assert (seen.excerpt, seen.found_in) == ('{"bad": "qqq"}', "excerpt")
    assert find_record([version], piece_id(seen.excerpt)[:12])[0].record_id == seen.record_id == piece_id(seen.excerpt)


def test_the_line_of_a_piece_is_looked_up_in_the_rows_as_they_were_read(build, place):
    """A version has no lines, for their order changes none; twelve rows stand before the pieces."""
    version = build({"bad": "qqq"}, b"{broken", {"bad": "qqq"}, {"bad": "other"})
    seen = with_lines(find_record([version], "qqq"), [version], place.store)
    assert {piece.lines for piece in seen} == {(13, 15)}
    [broken] = with_lines(find_record([version], "{broken"), [version], place.store)
    assert (broken.lines, "line" in broken.detail) == ((14,), False)
    assert [row.lines for row in with_lines(find_record([version], "number 3?"), [version], place.store)] == [()]


def test_the_line_of_a_piece_with_pseudonyms_is_not_known(build, place):
    version = build({"bad": "a@example.com"}, cleaning=({"step": "personal"},))
    [seen] = with_lines(find_record([version], "EMAIL_1"), [version], place.store)
    assert seen.lines == ()


def test_the_passage_around_a_text_in_a_message_is_told(build):
    version = build({"instruction": "a " * 200 + "Grace Hopper" + " z" * 200, "output": "yes"})
    [seen] = find_record([version], "Grace Hopper")
    assert (seen.found_in, len(seen.passage)) == ("messages", 122)
    assert "a a Grace Hopper z z" in seen.passage
    assert (seen.passage[0], seen.passage[-1]) == ("…", "…")


@pytest.fixture
def version_of(tmp_path):
    """Write a version that holds nothing but these training rows."""

    def write(*rows):
        for name, lines in (("train", rows), ("eval", ()), ("rejected", ())):
            (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(row_line, lines)))
        return Entry("dataset", "key", "digest", tmp_path, {}, {})

    return write


def row_of(answer, meta, rejected=None):
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}]
    return build_row(messages, "a.jsonl", "default", meta, rejected)


def test_the_answer_that_was_not_chosen_is_searched(version_of):
    row = row_of("This one", {}, "x" * 300 + " said Grace Hopper " + "y" * 300)
    [seen] = find_record([version_of(row, row_of("None", {}))], "Grace Hopper")
    assert (seen.row, seen.found_in) == (row, "rejected")
    assert "said Grace Hopper yyy" in seen.passage
    assert len(seen.passage) < 200


@pytest.mark.parametrize(
    ("wanted", "place"), [("Alan", "meta.author.name"), ("70707", "meta.number"), ("née", "meta.notes")]
)
def test_what_stands_in_meta_is_searched(version_of, wanted, place):
    row = row_of("This one", {"author": {"name": "Alan Turing"}, "number": 170707, "notes": ["a", "Joan, née B."]})
    [seen] = find_record([version_of(row, row_of("None", {}))], wanted)
    assert (seen.row, seen.found_in) == (row, place)
    assert wanted in seen.passage


def test_a_row_that_only_names_its_parent_is_not_the_parent(version_of):
    parent = row_of("This one", {})
    version = version_of(parent, row_of("Made of it", {"parent": parent["id"], "method": "grammar"}))
    assert [seen.row for seen in find_record([version], parent["id"][:20])] == [parent]


def test_an_empty_search_is_refused(build):
    with pytest.raises(DataError, match="the record to look for is empty"):
        find_record([build()], " ")


def test_none_or_several_are_not_the_record(build):
    version = build({"bad": "Who is number 99?"})
    with pytest.raises(DataError, match="no data version has such a row"):
        the_record(find_record([version], "0123456789ab"), "0123456789ab")
    with pytest.raises(
        DataError, match=r"12 rows and 1 rejected piece match \((\w{12}, ){5}…\); expected the .* id; ll"
    ) as said:
        the_record(find_record([version], "Who is number"), "Who is number")
    assert "llm-retrain data why 'Who is number' shows them" in str(said.value)


def test_what_a_terminal_could_not_decode_is_refused(build):
    with pytest.raises(DataError, match="is no UTF-8"):
        find_record([build()], "\udcff")
