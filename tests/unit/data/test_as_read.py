"""A record that no version shows is found as it was read, and its text is not told."""

import pytest

from tasks.contracts.errors import DataError
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.records.as_read import find, find_one
from tasks.data.records.erasure import erase
from tasks.data.records.traces import traces_of
from tasks.data.versions import chosen_version

OTHERS = [{"instruction": f"Who is number {n}?", "output": f"Person {n} of them"} for n in range(12)]
ANNA = {"instruction": "Who <b>knows</b>?", "output": "anna@example.com of Bath, I believe"}
PERSONAL = {"step": "personal"}


@pytest.fixture
def build(place, write_lines, data_of):
    def run(*records, **settings):
        data = data_of(write_lines(*OTHERS, *records), eval_rows=3, **settings)
        dataset = build_dataset(ingest(data, place, data.sources), None, data, place)
        return chosen_version(place.store, dataset.digest)

    return run


def test_a_person_is_found_by_what_the_personal_step_hid(build, place):
    version = build(ANNA, cleaning=({"step": "html"}, PERSONAL))
    read, seen = find(place.store, "anna@example.com")
    assert (read.version, read.where, read.row, read.passage) == (version.inputs["rows"], "read", None, "")
    assert (seen.version, seen.found_in) == (version.digest, "read")
    assert seen.where in ("train", "eval")
    assert seen.row["messages"][-1]["content"] == "<EMAIL_1> of Bath, I believe"
    assert "anna@" not in str((read, seen))


def test_what_was_dropped_without_its_text_is_found_where_it_was_read(build, place):
    version = build(ANNA, cleaning=({**PERSONAL, "action": "drop"},))
    [read] = find(place.store, "anna@example.com")
    assert (read.version, read.where) == (version.inputs["rows"], "read")


def test_what_a_version_shows_is_not_looked_for_in_what_was_read(build, place):
    build(ANNA, cleaning=(PERSONAL,))
    assert {seen.where for seen in find(place.store, "I believe")} <= {"train", "eval"}


def test_a_person_is_erased_by_what_the_personal_step_hid(build, place):
    build(ANNA, cleaning=({"step": "html"}, PERSONAL))
    record, sightings = find_one(place.store, "anna@example.com")
    assert len(sightings) == 2
    erase(place.home, traces_of(record, place.home, place.store).marks, "she asked")
    assert build(ANNA, cleaning=(PERSONAL,)).facts["rejected"] == {"erased": 1}
    assert build({**ANNA, "output": "<EMAIL_1> of Bath, I believe"}, cleaning=()).facts["rejected"] == {}
    marked = {"instruction": "Who knows?", "output": "<EMAIL_1> of Bath, I believe"}
    assert build(marked, cleaning=()).facts["rejected"] == {"erased": 1}


def test_a_piece_is_found_and_erased_by_what_the_personal_step_hid(build, place):
    bad = b'{"ask": "anna@example.com knows it", "broken'
    build(bad, cleaning=(PERSONAL,))
    read, seen = find(place.store, "anna@example.com")
    assert (read.where, seen.where, seen.excerpt) == ("read", "rejected", '{"ask": "<EMAIL_1> knows it", "broken')
    record, _ = find_one(place.store, "anna@example.com")
    erase(place.home, traces_of(record, place.home, place.store).marks, "she asked")
    assert "knows it" not in (build(bad, cleaning=(PERSONAL,)).path / "rejected.jsonl").read_text()


def test_several_or_none_that_were_read_are_not_the_record(build, place):
    build(ANNA, {**ANNA, "instruction": "Who else?"}, cleaning=(PERSONAL,))
    with pytest.raises(DataError, match="2 rows match"):
        find_one(place.store, "anna@example.com")
    with pytest.raises(DataError, match="no data version has such a row, nor has one that was read"):
        find_one(place.store, "bob@example.com")
