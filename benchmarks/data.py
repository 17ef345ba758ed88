"""The data engine side by side with what people use, on synthetic rows with duplicates and personal data planted.

    make bench-data          # or: python benchmarks/data.py --rows 200000 --peers-python .venv-bench/bin/python

Three parts: near duplicates (near_duplicates.py), personal data (personal_data.py, in the peers' environment, where
presidio is), and the whole line of the product from a row set to a data version (data_line.py). Every contestant runs
several times, in turn. Prints tables and writes var/bench/data.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import data_line
import near_duplicates
from data_rows import write_rows
from near_duplicate_contestants import CONTESTANTS

HERE = Path(__file__).parent
RESULT = HERE.parent / "var" / "bench" / "data.json"
RUNS, LEAST_ROWS = 3, 4_000


def main() -> None:
    """Run the three parts and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of requirements/bench-data.txt")
    arguments = parser.parse_args()
    if arguments.rows < LEAST_ROWS:
        parser.error(f"--rows is {arguments.rows}; expected at least {LEAST_ROWS}: a tenth must hold planted pairs")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=RESULT.parent) as folder:
        planted = write_rows(Path(folder), arguments.rows)
        line = data_line.measure(planted, arguments.rows, arguments.runs)
        print(data_line.table(line), flush=True)
        personal = measure_personal(arguments.peers_python)
        print(personal_table(personal), flush=True)
        near = near_duplicates.compare(
            planted, arguments.rows, arguments.runs, arguments.peers_python, list(CONTESTANTS)
        )
        print(near_duplicates.table(near), flush=True)
    speed = {name: statistics.median(runs) for name, runs in personal["mb_per_s_per_core"].items()}
    ratios = {
        **near["ratios"],
        "build_near_duplicate_recall": statistics.median(line["near_duplicate_recall"]),
        "build_near_pairs_across_the_split": statistics.median(line["near_pairs_across_the_split"]),
        "personal_data_mb_per_s_per_core": speed["product"],
        "personal_data_vs_presidio": speed["product"] / speed["presidio"] if "presidio" in speed else None,
        "cleaning_rows_per_s": statistics.median(line["rows_per_s"]),
        "cleaning_rows_per_s_without_near_duplicates": statistics.median(line["no_near_rows_per_s"]),
        "cleaning_rows_per_s_all_steps": statistics.median(line["all_steps_rows_per_s"]),
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
    print("\n".join(f"{key:44} {'–' if value is None else format(value, '.3f')}" for key, value in ratios.items()))
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
        lines.append(f"  {name:10} {data_line.spread(runs)}  recall {personal['recall_on_shared_kinds'][name]:.3f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
