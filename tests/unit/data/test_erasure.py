"""A record that was erased is in no later version, whatever the cleaning settings; what still holds it is said."""

import pytest

from tasks.contracts.cleaning_config import DEFAULT_STEPS
from tasks.contracts.errors import DataError
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.records.erasure import erase, erased_before
from tasks.data.records.sightings import find_record, the_record
from tasks.data.records.traces import traces_of
from tasks.data.sources.materialised import open_materialised
from tasks.data.versions import chosen_version, data_versions, rows_of

OTHERS = [{"instruction": f"Who is number {n}?", "output": f"Person {n} of them"} for n in range(12)]
HTML = ({"step": "html"}, *DEFAULT_STEPS)
RAW = {"instruction": "Who <b>wrote</b>  it?", "output": "<i>Ada</i> Lovelace"}
CLEAN = {"instruction": "Who wrote  it?", "output": "Ada Lovelace"}


@pytest.fixture
def build(place, write_lines, data_of):
    """Build a data version of records beside the twelve, and return what was rejected and where it stands."""

    def run(*records, name="rows.jsonl", **settings):
        source = write_lines(*OTHERS, *records, name=name)
        data = data_of(source, eval_rows=3, **settings)
        dataset = build_dataset(ingest(data, place, data.sources), None, data, place)
        version = chosen_version(place.store, dataset.digest)
        assert dataset.rows_read == dataset.train_rows + dataset.eval_rows + sum(dataset.rejected.values())
        return dataset.rejected, version

    return run


@pytest.fixture
def forget(place):
    """Erase the one record that some text or id names, in the newest version or in all, and return its traces."""

    def run(wanted, *versions):
        versions = list(versions) or data_versions(place.store)
        traces = traces_of(the_record(find_record(versions, wanted), wanted), place.home, place.store)
        erase(place.home, traces.marks, "asked to be forgotten")
        return traces

    return run


def nothing_says(version, text):
    return not [path.name for path in version.path.iterdir() if text in path.read_text()]


def test_an_erased_record_is_in_no_later_version_and_nothing_keeps_its_text(build, place, forget):
    record = {"instruction": "Who wrote it?", "output": "Ada Lovelace of London"}
    _, first = build(record)
    [seen] = find_record([first], "Lovelace")
    forget("Lovelace")
    rejected, second = build(record)
    assert rejected == {"erased": 1}
    assert nothing_says(second, "Lovelace")
    assert "Lovelace" not in place.home.erased.read_text()
    assert [each.where for each in find_record([first, second], seen.record_id)] == [seen.where]
    listed = erased_before(place.home, [], seen.record_id[:12])
    assert listed == erased_before(place.home, [seen.record_id])
    assert [listed[seen.record_id]["reason"], *listed] == ["asked to be forgotten", seen.record_id]
    assert erased_before(place.home, ["0" * 64], "Lovelace") == {}
    kept = place.home.erased.read_text()
    again = erase(place.home, forget("Lovelace", first).marks, "another reason")
    assert (again["before"], again["reason"]) == (True, "asked to be forgotten")
    assert place.home.erased.read_text() == kept


def test_a_row_erased_as_one_line_spells_it_stays_out_under_another_line(build, forget):
    _, first = build(RAW, cleaning=HTML)
    assert nothing_says(first, "<i>Ada")
    forget("Ada Lovelace")
    rejected, second = build(RAW)
    assert rejected == {"erased": 1}
    assert nothing_says(second, "Lovelace")


def test_the_original_spelling_stays_out_also_in_another_case(build, forget):
    build(RAW, cleaning=HTML)
    forget("Ada Lovelace")
    shouted = {key: text.upper() for key, text in RAW.items()}
    assert build(shouted)[0] == {"erased": 1}


def test_a_row_erased_as_it_was_read_stays_out_as_another_line_spelled_it(build, forget):
    """A data version that was made with the step html is read again as a source."""
    _, raw = build(RAW)
    build(RAW, cleaning=HTML)
    forget("Lovelace", raw)
    assert build(CLEAN)[0] == {"erased": 1}


def test_the_originals_of_exact_duplicates_stay_out_under_another_line(build, forget):
    others = [{**RAW, "output": "<b>Ada</b> Lovelace"}, {**RAW, "output": "<u>ADA</u> Lovelace"}]
    rejected, first = build(RAW, *others, cleaning=HTML)
    assert rejected == {"exact duplicate": 2}
    kept = next(seen for seen in find_record([first], "Lovelace") if seen.where != "rejected")
    forget(kept.record_id)
    assert build(RAW, *others)[0] == {"erased": 3}


@pytest.mark.parametrize("number", [0, 1])
def test_of_equal_rows_one_that_went_takes_the_others_with_it(build, forget, number):
    others = [{**RAW, "output": "<b>aDA</b> Lovelace"}, {**RAW, "output": "<u>ADA</u> Lovelace"}]
    _, first = build(RAW, *others, cleaning=HTML)
    gone = [seen for seen in find_record([first], "Lovelace") if seen.where == "rejected"]
    forget(gone[number].record_id)
    assert build(RAW, *others)[0] == {"erased": 3}


def test_a_row_that_a_later_step_dropped_stays_out_under_another_line(build, forget):
    steps = (*HTML, {"step": "blocked", "words": ["Lovelace"]})
    rejected, _ = build(RAW, cleaning=steps)
    assert rejected == {"blocked word": 1}
    forget("Ada Lovelace")
    assert build(RAW)[0] == {"erased": 1}


def test_a_row_with_pseudonyms_stays_out_when_there_is_no_such_step(build, forget):
    record = {"instruction": "Who wrote it?", "output": "ada@example.org, I believe"}
    _, first = build(record, cleaning=({"step": "personal"},))
    [seen] = find_record([first], "I believe")
    assert "<EMAIL_1>" in seen.row["messages"][-1]["content"]
    forget(seen.record_id)
    assert build(record)[0] == {"erased": 1}


def test_a_row_dropped_before_it_came_to_the_personal_step_stays_out_without_it(build, forget):
    record = {"instruction": "Who <b>wrote</b> it?", "output": "ada@example.org, I believe"}
    build(record, cleaning=({"step": "html"}, {"step": "blocked", "words": ["believe"]}, {"step": "personal"}))
    forget("<EMAIL_1>, I believe")
    assert build(record)[0] == {"erased": 1}


def test_no_file_of_a_version_leads_from_a_pseudonym_to_the_value(build):
    """The id of the row as it was read would let anybody try telephone numbers until one fits."""
    record = {"instruction": "Whom do I call?", "output": "Call 13800138000"}
    _, raw = build(record)
    [seen] = find_record([raw], "Whom do I call?")
    _, masked = build(record, cleaning=({"step": "personal"},))
    _, dropped = build(record, cleaning=({"step": "personal"}, {"step": "blocked", "words": ["Whom"]}))
    _, before = build(record, cleaning=({"step": "blocked", "words": ["Whom"]}, {"step": "personal"}))
    for version in (masked, dropped, before):
        assert find_record([version], "Whom do I call?")
        assert nothing_says(version, seen.record_id)


TORN = b'{"marks":["bb","c'


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ([b'{"marks":["aa"],"reason":"x","time":"t"}', b"", TORN], 3),
        ([TORN, b'{"marks":["aa"],"reason":"x","time":"t"}'], 1),
        ([b'{"marks":["aa"],"reason":"\xe5\xbc'], 1),
        ([b'{"reason":"x"}'], 1),
        ([b'{"marks":"aa"}'], 1),
        ([b"[]"], 1),
    ],
)
def test_a_damaged_list_of_erased_records_stops_a_build_in_one_sentence(build, place, lines, number):
    """A line passed over in silence would let the record that it names come back."""
    place.home.erased.parent.mkdir(parents=True, exist_ok=True)
    place.home.erased.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"line {number} of .*erased.jsonl, the list of erased records, is damaged"):
        build()
    with pytest.raises(DataError, match="is damaged"):
        erase(place.home, ["dd"], "asked")
    assert place.home.erased.read_bytes() == b"\n".join(lines)


def test_no_version_has_the_id_of_the_text_that_was_erased(build, forget):
    """An erased row is counted, and the id of what was read would let anybody try addresses until one fits."""
    record = {"instruction": "Whom do I call?", "output": "Call 13800138000"}
    _, raw = build(record)
    [seen] = find_record([raw], "Whom do I call?")
    forget(seen.record_id)
    for cleaning in ((), ({"step": "personal"},), ({"step": "blocked", "words": ["Whom"]}, {"step": "personal"})):
        rejected, version = build(record, cleaning=cleaning)
        assert rejected == {"erased": 1}
        assert nothing_says(version, seen.record_id)
        assert '"detail":"erased"' in (version.path / "rejected.jsonl").read_text()


def test_what_is_not_the_record_stays(build, forget):
    _, first = build(RAW, cleaning=HTML)
    before = {row["id"] for split in ("train", "eval") for row in rows_of(first, split)}
    [seen] = find_record([first], "Ada Lovelace")
    forget("Ada Lovelace")
    _, second = build(RAW, cleaning=HTML)
    assert {row["id"] for split in ("train", "eval") for row in rows_of(second, split)} == before - {seen.record_id}


def test_a_frozen_set_of_which_every_row_was_erased_is_one_sentence(build, forget):
    _, first = build()
    for row in list(rows_of(first, "eval")):
        forget(row["id"])
    with pytest.raises(DataError, match="of which no row is left: all were erased"):
        build(frozen_evaluation=first.digest)


def test_a_malformed_piece_that_was_erased_keeps_its_reason_and_loses_its_text(build, place, forget):
    bad = b'{"ask": "Ada Lovelace", "broken'
    rejected, first = build(bad)
    [reason] = rejected
    forget("Lovelace")
    again, second = build(bad)
    assert again == rejected
    assert not nothing_says(first, "Lovelace")
    assert nothing_says(second, "Lovelace")
    [record] = [seen for seen in find_record([second], "erased") if seen.reason == reason]
    assert (record.detail, record.excerpt, record.row) == ("erased", "", None)
    assert "Lovelace" not in place.home.erased.read_text()


def test_a_piece_erased_with_pseudonyms_loses_its_text_also_without_them(build, forget):
    bad = b'{"ask": "ada@example.org knows it", "broken'
    build(bad, cleaning=({"step": "personal"},))
    forget("knows it")
    assert nothing_says(build(bad)[1], "knows it")


def test_what_still_holds_a_row_is_said(build, place, forget):
    _, first = build(RAW, cleaning=HTML)
    [seen] = find_record([first], "Ada Lovelace")
    with open_materialised(place.home.sources, {"url": "x"}, "data.sources") as fetched:
        fetched.replace([{"title": "Who <b>wrote</b>  it?", "text": {"answer": "<i>Ada</i> Lovelace"}}])
    with open_materialised(place.home.sources, {"url": "y"}, "data.sources") as fetched:
        fetched.replace([{"title": "Who <b>wrote</b>  it? And why?", "answer": "<i>Ada</i> Lovelace"}, OTHERS[0]])

    def answered(kind):
        line = f'{{"id":"{seen.record_id}","{kind}":1}}\n'
        return place.store.produce(kind, {}, lambda out: {"bytes": (out / "predictions.jsonl").write_text(line)})

    answers, report = answered("predictions"), answered("report")
    page = place.store.produce(
        "review", {"report": report.digest}, lambda out: {"bytes": (out / "a.md").write_text("Ada")}
    )
    shows = f"<p>{seen.record_id[:12]}</p>"
    alone = place.store.produce("review", {"report": "x"}, lambda out: {"bytes": (out / "a.html").write_text(shows)})
    killed = place.store.root / "review" / f".{'0' * 8}-x"
    killed.mkdir()
    (killed / "review.html").write_text(shows)
    place.store.produce("review", {"report": "other"}, lambda out: {"bytes": (out / "a.md").write_text("Grace")})
    for sheet, row in (("s1", seen.record_id), ("s2", "other")):
        (place.home.ratings / sheet).mkdir(parents=True)
        (place.home.ratings / sheet / "by-1.json").write_text(f'{{"ratings":[{{"row":"{row}"}}]}}')
    _, without = build(name="others.jsonl")
    traces = forget("Ada Lovelace")
    assert traces.versions == traces.learned == [first.digest] != [without.digest]
    assert traces.row_sets == [first.inputs["rows"]]
    assert sorted(traces.results) == sorted([answers.digest, report.digest, page.digest, alone.digest])
    assert traces.unfinished == [str(killed)]
    assert traces.ratings == [str(place.home.ratings / "s1")]
    [folder] = traces.sources
    assert "why" not in (place.home.sources / folder / "chunk-000001.jsonl").read_text()


def test_a_version_that_only_rejected_a_row_holds_it_and_taught_it_to_no_model(build, forget):
    _, first = build(RAW, cleaning=({"step": "blocked", "words": ["Lovelace"]},))
    traces = forget("Lovelace")
    assert (traces.versions, traces.learned) == ([first.digest], [])


@pytest.fixture
def build_killed(build, monkeypatch):
    """Build a version as if the process were killed when its rows are written: nothing is tidied."""

    def kill(*_):
        raise KeyboardInterrupt

    def run(*records, **settings):
        with monkeypatch.context() as patched:
            patched.setattr("tasks.data.build.DatasetFiles.write_contamination", kill)
            patched.setattr("tasks.contracts.store.shutil.rmtree", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                build(*records, **settings)

    return run


def test_what_a_killed_build_left_holds_a_row_also_in_a_spelling_of_its_own(build, build_killed, place, forget):
    build(RAW)
    build_killed(RAW, cleaning=HTML)
    [left] = place.store.unfinished()
    assert "<i>Ada" not in "".join(path.read_text(errors="replace") for path in left.rglob("*") if path.is_file())
    build_killed(name="others.jsonl")
    assert forget("Lovelace").unfinished == [str(left)]


def test_what_a_killed_build_left_holds_a_piece_and_is_removed_by_the_next(build, build_killed, place, forget):
    bad = b'{"ask": "Ada Lovelace", "broken'
    build(bad)
    build_killed(bad, cleaning=HTML)
    build_killed(name="others.jsonl")
    [left] = [each for each in place.store.unfinished() if "Lovelace" in (each / "rejected.jsonl").read_text()]
    assert forget("Lovelace").unfinished == [str(left)]
    build(bad)
    assert place.store.unfinished() == []


def test_a_torn_line_of_a_piece_is_taken_for_the_piece(build, build_killed, place, forget):
    bad = b'{"ask": "Ada Lovelace", "broken'
    build(bad)
    build_killed(name="others.jsonl")
    [left] = place.store.unfinished()
    (left / "rejected.jsonl").write_text('{"detail":"x","excerpt":"{\\"ask\\": \\"Ada Lovel')
    assert forget("Lovelace").unfinished == [str(left)]


def test_a_damaged_entry_that_was_set_aside_holds_a_row(build, place, forget):
    _, first = build(RAW)
    with (first.path / "rejected.jsonl").open("a") as file:
        file.write("\n")
    place.store.__init__(place.store.root)  # a new process: what was verified before is forgotten
    build(RAW)
    [aside] = place.store.set_aside()
    assert forget("Lovelace").unfinished == [str(aside)]


@pytest.mark.parametrize("bad", [b'{"ask": "Ada Lovelace", "broken', {"ask": "Ada Lovelace"}])
def test_what_still_holds_a_piece_is_said(build, place, forget, bad):
    _, first = build(bad)
    with open_materialised(place.home.sources, {"url": "x"}, "data.sources") as fetched:
        fetched.replace([OTHERS[0], {"ask": "Ada Lovelace"}])
    traces = forget("Lovelace")
    assert (traces.versions, traces.row_sets) == ([first.digest], [first.inputs["rows"]])
    assert len(traces.sources) == (1 if isinstance(bad, dict) else 0)
