"""A source with too many malformed pieces is refused as soon as that is certain, and never before."""

import gzip
import json
import random
from collections import Counter

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.source_config import FilesSource
from tasks.data import ingest as ingestion
from tasks.data import part
from tasks.data.build import build_dataset
from tasks.data.ingest import ingest
from tasks.data.rows import Rejection
from tasks.data.sources import Shard, files, open_source, read_shard
from tasks.data.sources.malformed import MalformedShare, check_malformed_share, most_rows

GOOD = {"instruction": "Hello?", "output": "Yes."}
MAPPED = {"instruction": "a", "output": "a"}


def read(kept, malformed, is_whole=True):
    return {"kept": kept, "rejected": {"not JSON": malformed}, "first": [], "is_whole": is_whole}


@pytest.mark.parametrize("seed", range(40))
def test_what_would_pass_at_the_end_is_never_refused_before(seed):
    chosen = random.Random(seed)
    refused = 0
    for _ in range(100):
        share = chosen.choice([0, 1e-6, 0.05, 1 / 3, 0.5, 0.999, 1])
        sizes = [chosen.choice([0, 1, 10, 1_000, 10**6]) for _ in range(chosen.randrange(1, 12))]
        parts = [(chosen.randint(0, most), chosen.choice([0, 1, most // 3, most])) for most in sizes]
        kept, malformed = (sum(column) for column in zip(*parts, strict=True))
        share = chosen.choice([share, malformed / (kept + malformed) if kept + malformed else 0])  # the very edge
        counting = MalformedShare("a", "data.sources", share, dict(enumerate(map(float, sizes))))
        try:
            for number in chosen.sample(range(len(parts)), len(parts)):
                counting.add(number, read(*parts[number]))
        except DataError:
            refused += 1
            with pytest.raises(DataError):
                check_malformed_share("a", "data.sources", kept + malformed, malformed, [], share)
    assert refused > 5


@pytest.mark.parametrize("seed", range(20))
def test_no_part_is_refused_by_its_own_count_that_would_pass_with_the_others(seed):
    chosen = random.Random(seed)
    for _ in range(100):
        share, rows = chosen.choice([0, 1e-6, 0.05, 1 / 3, 0.5, 0.999, 1]), chosen.randrange(10_000)
        most = MalformedShare("a", "data.sources", share, {0: float(rows)}).most_malformed
        if share < 1:
            malformed = int(most) + 1
            assert malformed > share * (rows + malformed)
        else:
            assert most == float("inf")


@pytest.mark.parametrize(
    ("name", "content", "columns", "rows"),
    [
        ("a.jsonl", b'{"prompt":"a","completion":""}\n' * 1_000, {}, 1_000),
        ("a.jsonl", b'{"a":"b"}\n' * 1_000, MAPPED, 1_000),
        ("a.json", b"[" + b",".join([b'{"prompt":"a","completion":""}'] * 1_000) + b"]", {}, 1_000),
        ("a.json", b"[" + b'{"a":"b"}' * 1_000 + b"]", MAPPED, 1_000),  # the commas are malformed, the rows are rows
        ("a.csv", b"a\n" * 1_001, MAPPED, 1_000),
        ("a.tsv", b"prompt\tcompletion\n" + b"a\t\n" * 1_000, {}, 1_000),
        ("a.jsonl.gz", gzip.compress(b'{"a":"b"}\n' * 200_000), MAPPED, 200_000),
        ("a.jsonl", '{"a":"b"}\n'.encode("utf-16") * 100, MAPPED, None),
    ],
)
def test_no_file_has_more_rows_than_its_bytes_allow(tmp_path, name, content, columns, rows):
    path = tmp_path / name
    path.write_bytes(content)
    source = FilesSource(path=str(path), columns=columns)
    [shard] = open_source(source, 0, "data.sources", tmp_path / "cache").shards
    found = sum(not isinstance(row, Rejection) for row in read_shard(shard, source))
    assert rows is None or found == rows
    assert found <= most_rows(shard, source, len(content))


def test_where_bytes_say_nothing_of_rows_nothing_is_refused_early(tmp_path):
    source = FilesSource(path="a.parquet")
    assert most_rows(Shard(0, "a.parquet", "a.parquet", file_format="parquet"), source, 10) == float("inf")
    counting = MalformedShare("a", "data.sources", 0.05, {0: float("inf"), 1: 10.0})
    counting.add(1, read(0, 10**9))
    with pytest.raises(DataError, match="1000000000 of 1000000000 records are malformed"):
        counting.check()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 1_000)
    monkeypatch.setattr(files, "BLOCK_BYTES", 100)  # a block is cut once at most


def parts_read(data, place):
    told = []
    with pytest.raises(DataError) as caught:
        ingest(data, place, data.sources, lambda done, total: told.append((done, total)))
    return len(told), told[0][1], str(caught.value)


def test_a_flood_of_garbage_is_refused_before_all_of_it_is_read(write_lines, data_of, place, small_parts):
    source = write_lines(*[b"x" * 99] * 1_000)
    done, parts, sentence = parts_read(data_of(source, max_malformed_share=0.05), place)
    assert parts == 100
    assert 12 <= done <= 17  # a hundredth of a part is malformed pieces, a thirtieth could be rows
    assert " in the part that was read are malformed" in sentence
    assert sentence.endswith(
        "the first: rows.jsonl:1, rows.jsonl:2, rows.jsonl:3: not JSON (Expecting value at character 1)"
    )


def test_garbage_at_the_beginning_is_no_flood_if_the_rest_makes_up_for_it(write_lines, data_of, place, small_parts):
    source = write_lines(*[b"x" * 99] * 50, *[GOOD] * 1_000)
    rows = ingest(data := data_of(source, max_malformed_share=0.05), place, data.sources)
    assert (rows.rows_kept, rows.rejected) == (1_000, {"not JSON": 50})


def test_where_nothing_may_be_malformed_a_compressed_file_is_not_read_on(tmp_path, data_of, place):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"x\n" * 100_000))
    data = data_of(FilesSource(path=str(path)), max_malformed_share=0)
    with pytest.raises(DataError, match="in which 1 of 1 records in the part that was read are malformed"):
        ingest(data, place, data.sources)


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setattr(part, "LISTED_PIECES", 20)


def lines(seed):
    """Return forty malformed lines, of two kinds, among rows."""
    found = [json.dumps({"instruction": f"Question {n}", "output": f"{n}"}).encode() for n in range(30)]
    found += [b"x%d" % n for n in range(25)] + [b"[%d]" % n for n in range(15)]
    random.Random(seed).shuffle(found)
    return found


def test_more_pieces_than_are_listed_are_counted_in_a_record_for_each_file_and_reason(
    write_lines, data_of, place, listed
):
    content = lines(1)
    rows = ingest(data := data_of(write_lines(*content)), place, data.sources)
    assert (rows.rows_read, rows.rejected) == (70, {"not JSON": 25, "not a usable conversation": 15})
    records = {record.pop("reason"): record for record in read_jsonl(rows.path / "rejected.jsonl")}
    first = next(number for number, line in enumerate(content, 1) if line.startswith(b"["))
    assert records.keys() == {"not JSON", "not a usable conversation"}
    assert records["not a usable conversation"] == {
        "source": "rows.jsonl",
        "source_index": 0,
        "line": first,
        "excerpt": "",
        "detail": "15 pieces, too many to list",
    }


def test_a_data_version_of_a_flood_does_not_depend_on_the_order_of_its_lines(write_lines, place, listed):
    digests, counts = set(), Counter()
    for seed in range(3):
        sources = (write_lines(*lines(seed)),)
        data = DataSection(sources=sources, max_malformed_share=1, near_duplicates=0)
        dataset = build_dataset(ingest(data, place, sources), None, data, place)
        digests.add(dataset.digest)
        counts.update(dataset.rejected)
    assert len(digests) == 1
    assert counts["not JSON"] == 75


def test_the_room_of_a_flood_is_bounded_while_it_is_read(write_lines, data_of, place, listed, monkeypatch):
    """Before the parts are joined, no part has written more than what is listed at most."""
    written = []

    def join(directory, jobs, results):
        written.extend(len(path.read_bytes().splitlines()) for path in directory.glob("*.rejected"))
        return joined(directory, jobs, results)

    joined = ingestion._join_parts
    monkeypatch.setattr(ingestion, "_join_parts", join)
    data = data_of(write_lines(*[b"x"] * 1_000))
    ingest(data, place, data.sources)
    assert written == [20]
