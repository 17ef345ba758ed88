"""Which row became which: found in both directions, over several steps and several data versions."""

import hashlib

import pytest

from tasks.data.records.lineage import Lineage, keep_lineage, relatives


def id_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def keep(store, tmp_path):
    """Keep pairs (became, was) as the lineage of one more data version, in as many files as there are lists."""

    def run(name, *lists):
        paths = []
        for number, pairs in enumerate(lists):
            lineage = Lineage()
            lineage.extend((id_of(new), id_of(old)) for new, old in pairs)
            paths.append(tmp_path / f"{name}-{number}")
            lineage.write(paths[-1])
        keep_lineage(store, {"version": name}, paths)

    return run


def found(store, *names):
    known = {id_of(name): name for name in ("raw", "other", "clean", "masked", "twin", "elsewhere", "apart")}
    return sorted(known[each] for each in relatives(store, map(id_of, names)))


def test_a_row_is_followed_to_what_was_read_and_to_whatever_was_made_of_that(keep, store):
    keep("a", [("clean", "raw"), ("masked", "clean")], [("apart", "elsewhere")])
    keep("b", [("twin", "raw")])
    for name in ("raw", "clean", "masked", "twin"):
        assert found(store, name) == ["clean", "masked", "raw", "twin"]


def test_what_two_rows_became_leads_to_both(keep, store):
    keep("a", [("clean", "raw")], [("clean", "other"), ("clean", "raw")])
    assert found(store, "clean") == ["clean", "other", "raw"]
    assert found(store, "raw") == ["clean", "raw"], "the other row was not asked for"


def test_a_version_in_which_no_row_changed_has_no_lineage_to_follow(keep, store):
    keep("a", [])
    assert found(store, "raw") == ["raw"]


def test_ids_that_only_begin_alike_are_not_the_same(store, tmp_path):
    lineage = Lineage()
    lineage.extend([("ab" * 8 + "0" * 48, "cd" * 32), ("ab" * 8 + "1" * 48, "ef" * 32)])
    lineage.write(tmp_path / "pairs")
    keep_lineage(store, {}, [tmp_path / "pairs"])
    assert relatives(store, ["ab" * 8 + "1" * 48]) == {"ab" * 8 + "1" * 48, "ef" * 32}
