"""What of an older data version is replayed: not what is evaluated now, and not what was erased since."""

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest
from tasks.data.records.erasure import erase, marks_of
from tasks.data.replay import check_replay, prepare_replay


@pytest.fixture
def place(tmp_path):
    return Place(Home(tmp_path / "home"), Store(tmp_path / "store"))


def build(place, folder, name, questions):
    path = folder / f"{name}.jsonl"
    write_jsonl(path, [{"instruction": question, "output": f"Answer to {question.strip()}"} for question in questions])
    data = DataSection.model_validate(
        {"sources": [{"kind": "files", "path": str(path)}], "near_duplicates": 0, "train_rows": 500, "eval_rows": 6}
    )
    return build_dataset(ingest(data, place, data.sources), None, data, place)


@pytest.fixture
def general(place, tmp_path):
    return build(
        place, tmp_path, "general", [f"What is the {n}th letter of {word}?" for n in range(20) for word in "ab"]
    )


def rows_of(dataset, split="train"):
    return list(read_jsonl(dataset.path / f"{split}.jsonl"))


def asked(rows):
    return {row["messages"][0]["content"] for row in rows}


def test_the_training_rows_of_the_named_version_are_replayed_and_its_evaluation_rows_are_not(place, tmp_path, general):
    own = build(place, tmp_path, "own", [f"Name city {n}." for n in range(30)])
    replay = prepare_replay(general.digest[:12], own, place)
    assert rows_of(replay) == rows_of(general)
    assert (replay.train_rows, replay.rejected) == (general.train_rows, {})
    assert prepare_replay(general.digest, own, place).digest == replay.digest
    assert prepare_replay("", own, place) is None


def test_what_the_run_evaluates_is_not_replayed_however_it_is_spelled(place, tmp_path, general):
    """The evaluation rows of this run stand in the older version among those for training."""
    own = build(place, tmp_path, "own", [question.upper() + " " for question in sorted(asked(rows_of(general)))])
    evaluated = {question.lower().strip() for question in asked(rows_of(own, "eval"))}
    assert evaluated
    replay = prepare_replay(general.digest, own, place)
    left = {question.lower() for question in asked(rows_of(replay))}
    assert left.isdisjoint(evaluated)
    assert replay.rejected == {"evaluated": len(evaluated)}
    assert replay.train_rows == general.train_rows - len(evaluated)


def test_what_was_erased_since_is_not_replayed(place, tmp_path, general):
    own = build(place, tmp_path, "own", [f"Name city {n}." for n in range(30)])
    before = prepare_replay(general.digest, own, place)
    gone = rows_of(general)[0]
    erase(place.home, marks_of(gone), "asked for")
    after = prepare_replay(general.digest, own, place)
    assert asked(rows_of(before)) - asked(rows_of(after)) == {gone["messages"][0]["content"]}
    assert after.rejected == {"erased": 1}


def test_a_digest_that_no_version_has_is_one_sentence(place, general):
    with pytest.raises(
        DataError, match=r"^training\.replay is 'abcdef12': no data version has that digest; expected one"
    ):
        check_replay("abcdef12", place)
    check_replay("", place)
    check_replay(general.digest, place)


def test_a_version_whose_rows_were_changed_is_refused(place, general):
    (general.path / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"^training\.replay is .* was changed after it was made \(.*train\.jsonl"):
        check_replay(general.digest, place)


def test_a_version_of_which_nothing_is_left_is_one_sentence(place, general):
    own = build(place, general.path.parent.parent, "own", [f"Name city {n}." for n in range(30)])
    for row in rows_of(general):
        erase(place.home, marks_of(row), "asked for")
    with pytest.raises(DataError, match="all its training rows are evaluated by this run or erased"):
        prepare_replay(general.digest, own, place)
