"""The data engine side by side with what people use, on synthetic rows with duplicates and personal data planted.

    make bench-data          # or: python benchmarks/data.py --rows 200000 --peers-python .venv-bench/bin/python

Three parts: near duplicates (near_duplicates.py), personal data (personal_data.py, in the peers' environment, where
presidio is), and the whole line of the product from a row set to a data version, with memory at a tenth of the rows and
at all of them. Every contestant runs several times, in turn. Prints tables and writes var/bench/data.json.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE.parent / "var" / "bench" / "data.json"
STEPS = ["unicode", "whitespace", "html", "repetition", "personal"]
RUNS = 3


def main() -> None:
    """Run the three parts and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of requirements/bench-data.txt")
    parser.add_argument("--line", metavar="FILE", help=argparse.SUPPRESS)  # a child of this very program
    parser.add_argument("--similarity", type=float, default=0.8, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        print(json.dumps(run_line(Path(arguments.line), arguments.similarity)))
        return
    import near_duplicates
    from data_rows import write_rows
    from near_duplicate_contestants import CONTESTANTS

    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=RESULT.parent) as folder:
        planted = write_rows(Path(folder), arguments.rows)
        tenth = Path(folder) / "tenth.jsonl"
        with planted.rows.open("rb") as rows, tenth.open("wb") as file:
            file.writelines(line for line, _ in zip(rows, range(arguments.rows // 10), strict=False))
        line = measure_line(planted.rows, tenth, arguments.runs)
        print(line_table(line), flush=True)
        personal = measure_personal(arguments.peers_python)
        print(personal_table(personal), flush=True)
        near = near_duplicates.compare(
            planted, arguments.rows, arguments.runs, arguments.peers_python, list(CONTESTANTS)
        )
        print(near_duplicates.table(near), flush=True)
    speed = {name: statistics.median(runs) for name, runs in personal["mb_per_s_per_core"].items()}
    ratios = {
        **{key: near["ratios"][key] for key in ("near_duplicates_vs_fastest_peer", "near_duplicate_recall")},
        "near_duplicates_vs_fastest_of_all": near["ratios"]["near_duplicates_vs_fastest_of_all"],
        "personal_data_mb_per_s_per_core": speed["product"],
        "personal_data_vs_presidio": speed["product"] / speed["presidio"] if "presidio" in speed else None,
        "cleaning_rows_per_s": statistics.median(line["rows_per_s"]),
        "cleaning_rows_per_s_without_near_duplicates": statistics.median(line["no_near_rows_per_s"]),
        "peak_memory_growth_at_10x": statistics.median(line["peak_mb"]) / statistics.median(line["tenth_peak_mb"]),
    }
    result = {
        "machine": machine(),
        "rows": arguments.rows,
        "line": line,
        "personal_data": personal,
        "near_duplicates": near,
        "ratios": ratios,
    }
    RESULT.write_text(json.dumps(result, indent=2, default=float) + "\n", encoding="utf-8")
    print("\n".join(f"{key:36} {'–' if value is None else format(value, '.3f')}" for key, value in ratios.items()))
    print(f"written to {RESULT}")


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }


def measure_line(rows: Path, tenth: Path, runs: int) -> dict[str, Any]:
    """Run the whole line on all rows, on a tenth of them, and without near duplicates, in turn, each in its process."""
    figures: dict[str, list[float]] = {}
    for _ in range(runs):
        for prefix, path, similarity in (("", rows, 0.8), ("tenth_", tenth, 0.8), ("no_near_", rows, 0)):
            command = [sys.executable, str(Path(__file__)), "--line", str(path), "--similarity", str(similarity)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for key, value in json.loads(done.stdout.splitlines()[-1]).items():
                figures.setdefault(prefix + key, []).append(value)
    return {**figures, "steps": STEPS}


def run_line(path: Path, similarity: float) -> dict[str, float]:
    """Read, clean (personal data included), find duplicates, divide and write; return speed and peak memory.

    The line is timed from the row set to the finished data version; reading is timed apart. Memory is that of this
    process and of its largest worker, times the workers.
    """
    from tasks.contracts.config import DataSection
    from tasks.contracts.home import Home
    from tasks.contracts.store import Store
    from tasks.data.build import build_dataset
    from tasks.data.ingest import Place, ingest

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        place = Place(Home(Path(folder)), Store(Path(folder) / "store"))
        data = DataSection(
            sources=({"kind": "files", "path": str(path)},),
            cleaning=tuple({"step": step} for step in STEPS),
            train_rows=10_000_000,
            eval_rows=1_000,
            near_duplicates=similarity,
        )
        start = time.perf_counter()
        rows = ingest(data, place, data.sources)
        read = time.perf_counter()
        dataset = build_dataset(rows, None, data, place)
        seconds = time.perf_counter() - read
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    megabytes, cores = path.stat().st_size / 1e6, len(os.sched_getaffinity(0))
    assert dataset.rows_read == rows.rows_read
    return {
        "rows_per_s": rows.rows_read / seconds,
        "mb_per_s_per_core": megabytes / seconds / cores,
        "reading_rows_per_s": rows.rows_read / (read - start),
        "peak_mb": own + cores * workers,
        "own_peak_mb": own,
        "near_duplicates": dataset.rejected.get("near duplicate", 0),
        "exact_duplicates": dataset.rejected.get("exact duplicate", 0),
    }


def line_table(line: dict[str, Any]) -> str:
    """Spell the figures of the whole line."""
    shown = (
        *("rows_per_s", "mb_per_s_per_core", "reading_rows_per_s", "peak_mb"),
        *("tenth_rows_per_s", "tenth_peak_mb", "no_near_rows_per_s"),
    )
    lines = [f"whole line ({', '.join(STEPS)}, duplicates, split), {len(line['rows_per_s'])} runs"]
    return "\n".join(lines + [f"  {key:24} {_spread(line[key])}" for key in shown]) + "\n"


def measure_personal(python: str) -> dict[str, Any]:
    """Run the scan and presidio, where it is installed, in turn in one process."""
    command = [python, str(HERE / "personal_data.py"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def personal_table(personal: dict[str, Any]) -> str:
    """Spell speed and recall of both scans."""
    lines = ["personal data, MB/s a core, and recall on the kinds both know"]
    for name, runs in personal["mb_per_s_per_core"].items():
        lines.append(f"  {name:10} {_spread(runs)}  recall {personal['recall_on_shared_kinds'][name]:.3f}")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):12,.1f}  ({min(values):,.1f} to {max(values):,.1f})"


if __name__ == "__main__":
    main()
