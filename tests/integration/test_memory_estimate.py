"""The estimate that a training process says at its start is near the peak that it measures at its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.home import PROJECT_ROOT

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("lengths", "every"), [("one", 21), ("many", 25)])
def test_estimated_peaks_are_within_15_percent_of_measured_ones(lengths, every, tmp_path):
    """Lines of two of the benchmark's sizes: other methods, precisions and batches."""
    out = tmp_path / "memory.json"
    script = str(PROJECT_ROOT / "benchmarks" / "memory_estimate.py")
    lines = ["--lengths", lengths, "--words", "90", "--every", str(every)]
    command = [sys.executable, script, "--sizes", "5M", "31M", *lines, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(PROJECT_ROOT))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = json.loads(out.read_text())
    assert len({line["method"] for line in lines}) >= 3 and {line["size"] for line in lines} == {"5M", "31M"}
    for line in lines:
        assert line["ratio"] == pytest.approx(1, abs=0.15), line
