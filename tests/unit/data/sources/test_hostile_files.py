"""Files somebody made or something broke: set aside with a reason, in bounded memory, while the run goes on."""

import gzip
import io
import json
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contracts.errors import DataError
from tasks.contracts.source_config import FilesSource
from tasks.data.rows import Rejection
from tasks.data.sources import byte_stream, check_malformed_share, csv_records, json_records
from tasks.data.sources.byte_stream import BOMB, BROKEN
from tasks.data.sources.csv_records import BROKEN_QUOTES, NO_HEADER, WRONG_FIELDS
from tasks.data.sources.json_lines import NOT_JSON, TOO_LONG

pytestmark = pytest.mark.slow

GOOD = b'{"instruction": "x", "output": "good"}'
MIB = 2**20


@contextmanager
def at_most_megabytes(limit):
    """Fail if Python's memory grows by more meanwhile."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:.0f} MB"


@pytest.fixture
def read_bytes(tmp_path, read):
    def reading(content, name="a.jsonl", **settings):
        path = tmp_path / name
        path.write_bytes(content)
        return read(FilesSource(path=str(path), **settings))

    return reading


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"instruction": "x"', NOT_JSON, "delimiter"),
        (b"[" * 100_000, NOT_JSON, "recursion"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, NOT_JSON, "recursion"),
        (b"1" * 5_000, NOT_JSON, "digits"),
        (b'{"instruction": "\xe9"}', "not UTF-8", "byte 18 of the line is 0xe9"),
        (b"\xff\xfe\xfd", "not UTF-8", "byte 1 of the line is 0xff"),
        (b"\0\0\0\0", NOT_JSON, "Expecting value"),
        (b'{"instruction": "x\0", "output": "y"}', NOT_JSON, "control character"),
        (b'{"instruction": "x\\u0000", "output": "y"}', "not a usable conversation", "NUL"),
        (b'"text"', "not a usable conversation", "expected a JSON object, found text"),
        (b'{"instruction": "x", "output": "\\ud83d"}', "not a usable conversation", "surrogate"),
    ],
    ids=map(str, range(11)),
)
def test_a_malformed_line_is_set_aside_with_file_line_reason_and_excerpt(read_bytes, line, reason, detail):
    reading = read_bytes(b"\n".join([GOOD, line, b"", GOOD]))
    assert reading.answers == ["good", "good"]
    (bad,) = reading.rejections
    assert (bad.reason, bad.source, bad.line) == (reason, "a.jsonl", 2)
    assert detail in bad.detail
    assert 0 < len(bad.excerpt) <= 2_000


def test_nan_is_a_value_and_no_reason_to_lose_a_row(read_bytes):
    assert read_bytes(b'{"instruction": "x", "output": "good", "score": NaN}').answers == ["good"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv"])
def test_a_record_of_10_mb_is_set_aside_without_being_held_whole(read_bytes, name):
    long = b"x" * (100 * MIB)
    if name == "a.csv":
        content, good = b'instruction,output\nx,good\n"' + long + b'",y\nx,good\n', ["good", "good"]
    elif name == "a.json":
        content, good = b"[" + GOOD + b', {"output": "' + long + b'"}, ' + GOOD + b"]", ["good", "good"]
    else:
        content, good = GOOD + b"\n" + long + b"\n" + GOOD, ["good", "good"]
    content = gzip.compress(content, 1) if name.endswith(".gz") else content
    del long
    if name.endswith(".gz"):
        content = gzip.compress(b"\n".join([GOOD, random.Random(1).randbytes(10 * MIB).hex().encode(), GOOD]), 1)
    with at_most_megabytes(60):
        reading = read_bytes(content, name)
    assert reading.answers == good
    assert reading.reasons == [BROKEN_QUOTES if name == "a.csv" and reading.reasons != [TOO_LONG] else TOO_LONG]


def test_a_long_record_at_the_limit_is_read(read_bytes):
    text = "x" * (8 * MIB - 100)
    line = json.dumps({"instruction": "q", "output": text}).encode()
    assert read_bytes(b"\n".join([line, GOOD])).answers == [text, "good"]


@pytest.mark.parametrize(
    ("document", "answers", "details"),
    [
        (b"[GOOD, {broken}, GOOD]", 2, ["Expecting property name"]),
        (b"[GOOD, 17, GOOD]", 2, ["expected an object after a comma"]),
        (b"[1, 2]", 0, ["expected an object"]),
        (b"[GOOD GOOD]", 2, ["expected an object after a comma"]),
        (b"[GOOD, GOOD", 2, ["the document ends before"]),
        (b'[GOOD, {"instruction": "', 1, ["the document ends before"]),
        (b"[GOOD]]", 1, ["something stands after the document"]),
        (b"[GOOD] [GOOD]", 1, ["something stands after the document"]),
        (b'[GOOD] "more"', 1, ["something stands after the document"]),
        (b"x [GOOD]", 1, ["something stands before the document"]),
        (b'{"a": [GOOD], "b": [GOOD, GOOD]}', 1, ["a second list of records"]),
        (b'{"a": 1}', 0, ["found an object without"]),
        (b"", 0, ["expected a list of records"]),
        (b"17", 0, ["expected a list of records"]),
        (b"[]", 0, []),
        (b'{"rows": []}', 0, []),
        (b"[" * 300_000, 0, ["the document ends before"]),
        (b"[" + b'{"a":' * 300_000 + b"1" + b"}" * 300_000 + b", GOOD]", 1, ["recursion"]),
        (b'["' + b"\\" * 1_000_001, 0, ["the document ends before"]),
        (b'["' + b'\\"' * 1_000_000 + b'", GOOD]', 1, ["expected an object"]),
    ],
    ids=map(str, range(20)),
)
def test_json_that_is_broken_costs_the_broken_part(read_bytes, document, answers, details):
    started = time.monotonic()
    reading = read_bytes(document.replace(b"GOOD", GOOD), "a.json")
    assert time.monotonic() - started < 10
    assert reading.answers == ["good"] * answers
    assert len(reading.rejections) == len(details)
    for rejection, detail in zip(reading.rejections, details, strict=True):
        assert detail in rejection.detail


def test_json_is_split_the_same_however_it_arrives(read_bytes, monkeypatch):
    records = [
        {"instruction": f'"{n}\\', "output": "{[" * (n % 5) + "\\\\" * (n % 3) + '"' * (n % 2)} for n in range(200)
    ]
    document = json.dumps({"x": ["]", {"y": "\\"}][:1], "rows": records}, indent=1).encode()
    for size in (1, 2, 3, 7, 64, 10_000):
        monkeypatch.setattr("tasks.data.sources.json_records._BLOCK_BYTES", size)
        reading = read_bytes(document, "a.json")
        assert (reading.answers, reading.rejections) == ([record["output"] for record in records], [])


def test_a_json_file_of_many_records_is_streamed():
    document = b"[" + b",".join([GOOD] * 30_000) + b"]"
    stream = io.BytesIO(document)
    with at_most_megabytes(4):
        assert sum(1 for _ in json_records.read_json_records(stream)) == 30_000


def test_one_stray_quote_in_a_csv_costs_one_line(read_bytes):
    good = b"x,good\n"
    reading = read_bytes(b"instruction,output\n" + good + b'"stray,good\n' + good * 1_000, "a.csv")
    assert reading.answers == ["good"] * 1_001
    assert [(bad.line, bad.reason) for bad in reading.rejections] == [(3, BROKEN_QUOTES)]
    assert reading.rejections[0].excerpt == '"stray,good'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'"a"b,y', BROKEN_QUOTES),
        (b"x,y,z", WRONG_FIELDS),
        (b"x", WRONG_FIELDS),
        (b"x,\xff", "not UTF-8"),
        (b'"open\n\xff', BROKEN_QUOTES),
        (b"x,a\0b", "not a usable conversation"),
        (b" ,y", "not a usable conversation"),
    ],
)
def test_a_broken_csv_record_is_set_aside_and_the_next_ones_keep_their_line_numbers(read_bytes, line, reason):
    tail = b'"two\nlines",good\nx,y,z\nx,good\n'
    reading = read_bytes(b"instruction,output\n" + line + b"\n" + tail, "a.csv")
    assert reading.answers == ["good", "good"]
    lines = line.count(b"\n") + 1
    assert (reading.rejections[0].line, reading.rejections[0].reason) == (2, reason)
    assert (reading.rejections[-1].line, reading.rejections[-1].reason) == (2 + lines + 2, WRONG_FIELDS)
    assert len(reading.rejections) == lines + 1


def test_hostile_quotes_cost_linear_time(read_bytes):
    """A line opens a quote before thousands of lines with even quotes: each is read twice, not thousands of times."""
    lines = [b"instruction,output"] + [b'"open'] + [b'x,"a ""b"" c"'] * 60_000 + [b'"open'] * 3 + [b'x,""""'] * 60_000
    stream = io.BytesIO(b"\n".join(lines))
    started = time.monotonic()
    with at_most_megabytes(20):
        records = bad = 0
        for _, record in csv_records.read_csv_records(stream, ",", "UTF-8"):
            records += isinstance(record, dict)
            bad += not isinstance(record, dict)
    assert time.monotonic() - started < 20
    assert records >= 119_000
    assert bad < 10


@pytest.mark.parametrize("header", [b"", b"\n\n", b"a,a\n1,2\n", b",,\n1,2,3\n"])
def test_a_csv_without_a_usable_header_is_one_malformed_piece(read_bytes, header):
    reading = read_bytes(header, "a.csv")
    assert (reading.rows, reading.reasons) == ([], [NO_HEADER])


@pytest.mark.parametrize(
    "formula", ["=cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0", '=HYPERLINK("http://x")', "+1"]
)
def test_a_spreadsheet_formula_is_text(read_bytes, formula):
    quoted = formula.replace('"', '""')
    reading = read_bytes(f'instruction,output\nx,"{quoted}"\n'.encode(), "a.csv")
    assert reading.answers == [formula]


def bomb(compression):
    if compression == "gzip":
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as packed:
            for _ in range(100):
                packed.write(b"x" * (MIB - 1) + b"\n")
        return buffer.getvalue()
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        for _ in range(1_000):
            packed.write(b"x" * (MIB - 1) + b"\n")
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "a.json.gz"])
def test_a_compression_bomb_is_stopped(tmp_path, peak_megabytes_of_reading, name):
    path = tmp_path / name
    path.write_bytes(bomb("zstd" if name.endswith("zst") else "gzip"))
    megabytes, rows, reasons = peak_megabytes_of_reading(path)
    assert (rows, reasons[-1], reasons.count(BOMB)) == (0, BOMB, 1)
    assert megabytes < 150


def test_what_is_merely_repetitive_is_no_bomb(read_bytes, monkeypatch):
    monkeypatch.setattr(byte_stream, "UNSUSPICIOUS_BYTES", MIB)
    numbers = (json.dumps({"instruction": f"question {n}", "output": "good"}) for n in range(100_000))
    assert len(read_bytes(gzip.compress("\n".join(numbers).encode()), "a.jsonl.gz").rows) == 100_000


def packed_rows(compression):
    """Pack 100,000 rows, the same ones each time, in several blocks."""
    draw = random.Random(1)
    plain = b"\n".join(json.dumps({"instruction": str(draw.random()), "output": "x"}).encode() for _ in range(100_000))
    return bytearray(gzip.compress(plain) if compression == "gzip" else pa.compress(plain, "zstd", asbytes=True))


@pytest.mark.parametrize(
    ("compression", "damage"),
    [("gzip", "cut"), ("gzip", "flipped"), ("gzip", "none of it"), ("zstd", "cut"), ("zstd", "none of it")],
)
def test_damaged_compression_is_one_malformed_piece_after_the_rows_before_it(read_bytes, compression, damage):
    """(A flipped bit in zstd may change a row and nothing else: its frames need no checksum.)"""
    content = packed_rows(compression)
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 255
    else:
        content = bytearray(b"plain text")
    reading = read_bytes(bytes(content), "a.jsonl." + ("gz" if compression == "gzip" else "zst"))
    assert reading.reasons.count(BROKEN) == 1
    assert reading.rejections[-1].reason == BROKEN
    assert ("nothing of it can be unpacked: " in reading.rejections[-1].detail) == (damage == "none of it")
    if damage == "cut":
        assert 1_000 < len(reading.rows) < 60_000


def test_members_of_a_gzip_file_are_read_one_after_the_other(read_bytes):
    assert read_bytes(gzip.compress(GOOD + b"\n") * 3, "a.jsonl.gz").answers == ["good"] * 3


def test_a_gzip_file_under_a_plain_name_is_unpacked(read_bytes):
    assert read_bytes(gzip.compress(GOOD), "a.jsonl").answers == ["good"]


def zip_with_a_way_out():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escaped.jsonl", GOOD)
    return buffer.getvalue()


def tar_with_a_way_out():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../escaped.jsonl")
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_with_a_way_out()),
        ("a.jsonl", zip_with_a_way_out()),
        ("a.tar.gz", tar_with_a_way_out()),
        ("a.tgz", tar_with_a_way_out()),
        ("a.tar", b""),
        ("a.7z", b""),
    ],
    ids=["zip", "zip named jsonl", "tar.gz", "tgz", "tar", "7z"],
)
def test_an_archive_is_refused_by_name_and_no_member_is_extracted(tmp_path, read, name, content):
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"^data\.sources names .*archives are not opened and no member of one is read"):
        read(FilesSource(path=str(folder / name)))
    (folder / "good.jsonl").write_bytes(GOOD)
    reading = read(FilesSource(path=str(folder / "*")))
    assert reading.answers == ["good"]
    assert len(reading.rejections) == 1
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {name, "good.jsonl"}


def parquet(records, **options):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink, **options)
    return bytearray(sink.getvalue())


RECORDS = [{"instruction": f"q{n}", "output": f"good {n}"} for n in range(1_000)]


@pytest.mark.parametrize("damage", ["no footer", "cut", "page", "footer length", "empty", "text"])
def test_a_damaged_parquet_file_is_one_malformed_piece(read_bytes, damage):
    content = parquet(RECORDS, write_page_checksum=True, compression="none")
    if damage == "no footer":
        content = content[:-200]
    elif damage == "cut":
        content = content[:100] + content[-500:]
    elif damage == "page":
        content[len(content) // 3] ^= 255
    elif damage == "footer length":
        content[-8:-4] = struct.pack("<I", 2**31)
    else:
        content = bytearray(b"instruction,output\n" if damage == "text" else b"")
    reading = read_bytes(bytes(content), "a.parquet")
    assert reading.reasons == [BROKEN]


def lying_footer(content, old, new):
    """Replace a varint of the footer by another of the same length."""

    def varint(value):
        zigzag, out = value << 1, bytearray()
        while zigzag >= 128:
            out.append(zigzag & 127 | 128)
            zigzag >>= 7
        return bytes([*out, zigzag])

    assert len(varint(old)) == len(varint(new))
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    assert varint(old) in content[start:]
    content[start:] = content[start:].replace(varint(old), varint(new))
    return bytes(content)


def test_a_parquet_file_that_lies_about_its_rows_is_set_aside(read_bytes):
    reading = read_bytes(lying_footer(parquet(RECORDS), 1_000, 7_000), "a.parquet")
    assert BROKEN in reading.reasons


def test_a_parquet_file_that_lies_about_its_size_is_set_aside_before_it_is_decoded(read_bytes, monkeypatch):
    content = parquet(RECORDS)
    size = pq.read_metadata(io.BytesIO(content)).row_group(0).total_byte_size
    bits = len(bin(size)) + 1
    claimed = 2 ** (7 * -(-bits // 7) - 1) - 1 - 63
    monkeypatch.setattr("tasks.data.sources.parquet_records.MAX_GROUP_BYTES", claimed - 1)
    monkeypatch.setattr("tasks.data.sources.parquet_records.read_parquet_records", None)
    reading = read_bytes(lying_footer(content, size, claimed), "a.parquet")
    assert reading.reasons == [BROKEN]
    assert "a row group of" in reading.rejections[0].detail


@pytest.mark.parametrize("nested", [False, True])
def test_a_small_parquet_file_of_one_value_a_million_times_does_not_fill_memory(
    tmp_path, peak_megabytes_of_reading, nested
):
    """The value stands once in the dictionary: 2 MB a row, 60 GB in all, in a file of some kilobytes."""
    text = "x" * (2 * MIB)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 30_000, pa.int32()), pa.array([text]))
    schema = pa.schema([("instruction", pa.string()), ("output", pa.string())])
    path = tmp_path / "a.parquet"
    if nested:
        values = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array([text])).cast(
            pa.large_string()
        )
        lists = pa.LargeListArray.from_arrays(pa.array(range(301), pa.int64()), values)
        pq.write_table(pa.table({"instruction": lists}), path, compression="zstd", dictionary_pagesize_limit=2**26)
    else:
        table = pa.table({"instruction": column, "output": pa.array(["y"] * 30_000)})
        pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**26)
        assert pq.read_schema(path).names == schema.names
    assert path.stat().st_size < MIB
    megabytes, _, reasons = peak_megabytes_of_reading(path)
    assert megabytes < 250
    assert reasons == [BOMB]


def test_up_to_the_allowed_share_is_no_error_and_more_is_one_sentence_with_counts_and_the_first_three():
    bad = [Rejection("not JSON", f"no {n}", "a.jsonl", n, "") for n in range(1, 6)]
    check_malformed_share("a*.jsonl", "data.sources", 20, 5, bad, 0.25)
    with pytest.raises(DataError) as caught:
        check_malformed_share("a*.jsonl", "data.sources", 19, 5, bad, 0.25)
    assert str(caught.value) == (
        "data.sources names 'a*.jsonl', in which 5 of 19 records are malformed, more than the share of 0.25 that "
        "data.max_malformed_share allows; the first: a.jsonl:1: not JSON (no 1); a.jsonl:2: not JSON (no 2); "
        "a.jsonl:3: not JSON (no 3)"
    )
