"""The size of a Parquet record is that of all its text, however deep it stands."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contracts.source_config import FilesSource
from tasks.data.sources.json_lines import TOO_LONG
from tasks.data.sources.shard import MAX_RECORD_BYTES

HALF = "Half of it. " * (MAX_RECORD_BYTES // 24 + 1)


def messages(answer, question="Why?"):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def read_table(tmp_path, read):
    def reading(records, schema=None):
        pq.write_table(pa.Table.from_pylist(records, schema=schema), tmp_path / "a.parquet")
        return read(FilesSource(path=str(tmp_path / "a.parquet")))

    return reading


def test_a_conversation_that_is_too_long_is_set_aside_and_the_others_are_read(read_table):
    reading = read_table([messages("Because."), messages(HALF, question=HALF), messages("So.")])
    assert reading.reasons == [TOO_LONG]
    assert reading.answers == ["Because.", "So."]
    [rejection] = reading.rejections
    assert rejection.line == 2
    assert rejection.detail == f"{2 * len(HALF) + 13:,} characters, at most 8,388,608 are read"
    assert rejection.excerpt.startswith("Half of it.")


def test_conversations_that_are_long_together_are_read(read_table):
    reading = read_table([messages(HALF), messages(HALF, question="And?"), messages(HALF, question="When?")])
    assert (reading.reasons, len(reading.answers)) == ([], 3)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.map_(pa.string(), pa.string()), [("a", HALF), ("b", HALF)]),
        (pa.struct({"deep": pa.list_(pa.list_(pa.string()))}), {"deep": [[HALF], [None, HALF]]}),
        (pa.list_(pa.large_string()), [HALF, HALF]),
    ],
    ids=["map", "struct", "list"],
)
def test_text_counts_wherever_it_stands(read_table, kind, value):
    schema = pa.schema({"instruction": pa.string(), "output": pa.string(), "more": kind})
    records = [{"instruction": "Why?", "output": f"{n}", "more": more} for n, more in enumerate((None, value))]
    reading = read_table(records, schema)
    assert (reading.reasons, reading.answers) == ([TOO_LONG], ["0"])
