import json
import subprocess
import sys
import textwrap

import pytest

from tasks.data.rows import Rejection
from tasks.data.sources import open_source, read_shard

KEY = "data.sources"
ROWS = [{"instruction": f"Question {number}?", "output": f"Answer {number}."} for number in range(5)]


class Reading:
    """What came of a source."""

    def __init__(self, opened, results):
        self.opened, self.results = opened, results
        self.rows = [result for result in results if not isinstance(result, Rejection)]
        self.rejections = [result for result in results if isinstance(result, Rejection)]
        self.answers = [row["messages"][-1]["content"] for row in self.rows]
        self.reasons = [rejection.reason for rejection in self.rejections]


@pytest.fixture
def read(tmp_path):
    """Open a source and read all its pieces."""

    def reading(source, **options):
        opened = open_source(source, 0, KEY, options.pop("cache", tmp_path / "cache"), **options)
        return Reading(opened, [result for shard in opened.shards for result in read_shard(shard, source)])

    return reading


@pytest.fixture
def rows():
    """Five small records."""
    return [dict(row) for row in ROWS]


@pytest.fixture
def answers():
    """Their answers."""
    return [row["output"] for row in ROWS]


@pytest.fixture
def lines():
    """Spell records as JSON lines."""
    return lambda records: "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.fixture
def peak_megabytes_of_reading():
    """Read files in a process of its own; return by how much its memory grew (in MB), and the reasons of rejections."""

    def measure(path, **settings):
        code = textwrap.dedent("""
            import json, resource, sys, pathlib
            import pyarrow.parquet, numpy
            from tasks.contracts.source_config import FilesSource
            from tasks.data.sources import open_source, read_shard
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            source = FilesSource(path=sys.argv[1], **json.loads(sys.argv[2]))
            opened = open_source(source, 0, "data.sources", pathlib.Path(sys.argv[1] + ".cache"))
            reasons, rows = [], 0
            for shard in opened.shards:
                for result in read_shard(shard, source):
                    if isinstance(result, dict):
                        rows += 1
                    else:
                        reasons.append(result.reason)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps([(after - before) / 1024, rows, reasons]))
        """)
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), json.dumps(settings)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return measure
