"""The benchmark counts what it says it counts: peaks of each process by itself, and pairs that a build found."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.home import Home
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
LARGE_MB = 150
PARENT_OF_A_SMALL_CHILD = f"""
import subprocess, sys, time
held = b"x" * ({LARGE_MB} << 20)
del held
subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)"], check=True)
print("done")
"""


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


def test_a_small_child_of_a_large_parent_has_a_small_peak(benchmark):
    command = [sys.executable, "-c", PARENT_OF_A_SMALL_CHILD]
    run, peak = benchmark("peak_memory").run_watched(command, dict(os.environ))
    assert run.stdout == "done\n"
    assert peak.own_mb > LARGE_MB
    assert 1 < peak.child_mb < LARGE_MB / 2
    assert peak.all_mb == pytest.approx(peak.own_mb + peak.child_mb, abs=5)


def recall_of_a_build(benchmark, tmp_path, similarity, **data):
    planted = benchmark("data_rows").write_rows(tmp_path / "rows", 1_500)
    place = Place(Home(tmp_path), Store(tmp_path / "store"))
    section = DataSection(
        sources=({"kind": "files", "path": str(planted.rows)},),
        cleaning=({"step": "html"}, {"step": "personal"}),
        near_duplicates=similarity,
        train_rows=100_000,
        **data,
    )
    built = build_dataset(ingest(section, place, section.sources), None, section, place)
    recall = benchmark("build_recall").near_duplicate_recall
    return recall(planted, planted.rows, 0.8, tmp_path / "store", built.path)


def test_a_build_that_looks_for_near_duplicates_finds_the_planted_pairs(benchmark, tmp_path):
    found = recall_of_a_build(benchmark, tmp_path, 0.8)
    assert found["near_pairs"] > 80
    assert found["near_pairs_dropped_by_steps"] == 0
    assert found["near_duplicate_recall"] > 0.95
    assert found["near_pairs_across_the_split"] == 0


def test_a_build_that_does_not_look_finds_few_and_divides_some(benchmark, tmp_path):
    found = recall_of_a_build(benchmark, tmp_path, 0, eval_rows=400)
    assert found["near_duplicate_recall"] < 0.3, "only those equal but for case and white space"
    assert found["near_pairs_across_the_split"] > 0
