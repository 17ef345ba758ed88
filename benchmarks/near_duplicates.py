"""Near duplicates side by side: the engine, rensa, datatrove, text-dedup and semhash on the same rows, two threads.

    python benchmarks/near_duplicates.py --rows 200000 --peers-python VENV/bin/python

The peers live in an environment of their own (requirements/bench-data.txt). Every contestant runs in a child process,
one after the other, the round repeated: each figure has its spread. Recall is counted on planted pairs, not both of
which are kept (or, from contestants that only flag rows, both of which are flagged). Precision is the share of the rows
taken out that had to go: all of a planted group but one. "In one cluster" is the share of planted pairs that stand on
one side of the split. Memory is that of all processes of a contestant together (peak_memory.py).

"ours" is the stage of the product, which does more than any peer: two searches, of prompts and of conversations, and
a look at the answers. "ours, sketch and clusters of one text a row" does what the peers do.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_rows import Planted, prompt_of, text_of, write_rows
from near_duplicate_contestants import CONTESTANTS, ONE_TEXT, PRODUCT, SLOW, SLOW_ROWS
from near_duplicate_ours import THREADS, THRESHOLD
from peak_memory import run_watched

HERE = Path(__file__).parent
LEAST_RECALL = 0.95
OURS = (PRODUCT, ONE_TEXT)


@dataclass
class Truth:
    """What was planted."""

    pairs: list[dict[str, Any]]
    group: dict[int, int]  # row → first row of its group

    @classmethod
    def read(cls, planted: Planted, rows: int) -> "Truth":
        """Read the planted pairs among the first rows."""
        pairs = [json.loads(line) for line in planted.pairs.read_text().splitlines()]
        pairs = [pair for pair in pairs if pair["row"] < rows]
        group: dict[int, int] = {}
        for pair in pairs:
            group.setdefault(pair["of"], pair["of"])
            group[pair["row"]] = group[pair["of"]]
        return cls(pairs, group)


@dataclass
class Result:
    """One contestant's figures; times and memory of every run."""

    name: str
    rows: int
    seconds: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    recall: float = 0.0
    recall_all: float = 0.0
    recall_exact: float = 0.0
    precision: float = 0.0
    pairs_in_one_cluster: float | None = None
    failed: str = ""

    def rows_per_second(self) -> list[float]:
        """Return rows a second of every run, slowest first."""
        return sorted(self.rows / seconds for seconds in self.seconds)


def compare(planted: Planted, rows: int, runs: int, peers_python: str, names: list[str]) -> dict[str, Any]:
    """Run every contestant `runs` times, interleaved; return the results and the ratios."""
    results = {name: Result(name, min(rows, SLOW_ROWS) if name in SLOW else rows) for name in names}
    with tempfile.TemporaryDirectory() as directory:
        truths: dict[int, Truth] = {}
        for count in {result.rows for result in results.values()}:
            truths[count] = Truth.read(planted, count)
            _write_halves(planted, count, Path(directory) / str(count))
        for _, result in itertools.product(range(runs), results.values()):
            if not result.failed:
                _run(result, Path(directory) / str(result.rows), peers_python, truths[result.rows])
    done = [result for result in results.values() if not result.failed]
    speed = {result.name: statistics.median(result.rows_per_second()) for result in done}
    peers = [result for result in done if result.name not in OURS]
    ratios = {"near_duplicate_recall": results[PRODUCT].recall}
    ratios["near_duplicate_pairs_in_one_cluster"] = results[PRODUCT].pairs_in_one_cluster
    able = [speed[peer.name] for peer in peers if peer.recall >= LEAST_RECALL]
    if able:
        ratios["near_duplicates_vs_fastest_peer"] = speed[PRODUCT] / max(able)
    if able and ONE_TEXT in speed:
        ratios["near_duplicates_one_text_vs_fastest_peer"] = speed[ONE_TEXT] / max(able)
    if peers:
        ratios["near_duplicates_vs_fastest_of_all"] = speed[PRODUCT] / max(speed[peer.name] for peer in peers)
    figures = {name: asdict(result) | {"rows_per_second": result.rows_per_second()} for name, result in results.items()}
    return {"rows": rows, "threads": THREADS, "threshold": THRESHOLD, "contestants": figures, "ratios": ratios}


def table(figures: dict[str, Any]) -> str:
    """Lay the results out for reading."""
    lines = [
        f"{figures['rows']} rows, {figures['threads']} threads; recall on planted near duplicates with Jaccard ≥"
        f" {figures['threshold']} (all planted ones; exact ones)",
        f"{'contestant':<58}{'rows/s':>9}{'spread':>17}{'recall':>8}{'all':>7}{'exact':>7}{'precision':>10}"
        f"{'clusters':>9}{'MB':>7}",
    ]
    for name, result in figures["contestants"].items():
        if result["failed"]:
            lines.append(f"{name:<58}not run: {result['failed']}")
            continue
        speeds = result["rows_per_second"]
        label = name if result["rows"] == figures["rows"] else f"{name} (first {result['rows']} rows)"
        spread = f"{speeds[0]:,.0f}-{speeds[-1]:,.0f}"
        lines.append(
            f"{label:<58}{statistics.median(speeds):>9,.0f}{spread:>17}{result['recall']:>8.3f}{result['recall_all']:>7.3f}"
            f"{result['recall_exact']:>7.3f}{result['precision']:>10.3f}{_share(result['pairs_in_one_cluster']):>9}"
            f"{max(result['peak_mb']):>7.0f}"
        )
    lines.append(
        f"'{PRODUCT}' is the product's stage: two searches (prompts, conversations) and a look at the answers."
        f"\nCompare '{ONE_TEXT}' with the peers: they, too, see one text a row and"
        " search once.\n'clusters': planted pairs in one cluster, so on one side of the split."
    )
    return "\n".join([*lines, *(f"{name}: {_share(value)}" for name, value in figures["ratios"].items())])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _write_halves(planted: Planted, rows: int, directory: Path) -> None:
    """Write the first rows for the contestants, one half and the other: as texts, and as prompts and answers."""
    for kind in ("texts", "conversations"):
        (directory / kind).mkdir(parents=True)
    with planted.rows.open(encoding="utf-8") as file:
        lines = list(itertools.islice(file, rows))
    half = len(lines) // 2
    for number, (start, end) in enumerate(((0, half), (half, len(lines)))):
        with (
            (directory / "texts" / f"{number}.jsonl").open("w", encoding="utf-8") as texts,
            (directory / "conversations" / f"{number}.jsonl").open("w", encoding="utf-8") as conversations,
        ):
            for row in range(start, end):
                record = json.loads(lines[row])
                text = {"row": row, "text": text_of(record)}
                texts.write(json.dumps(text, ensure_ascii=False) + "\n")
                conversation = {"prompt": prompt_of(record), "answer": record["output"]}
                conversations.write(json.dumps(conversation, ensure_ascii=False) + "\n")


def _run(result: Result, directory: Path, peers_python: str, truth: Truth) -> None:
    """Run a contestant once and take down its figures."""
    python = sys.executable if result.name in OURS else peers_python
    threads = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parent)}
    command = [python, str(HERE / "near_duplicate_contestants.py"), result.name, str(directory)]
    run, peak = run_watched(command, environment)
    if run.returncode:
        result.failed = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit {run.returncode}"
        return
    answer = json.loads(run.stdout.splitlines()[-1])
    result.seconds.append(answer["seconds"])
    result.peak_mb.append(peak.all_mb)
    found = set(answer["rows"])
    near = [pair for pair in truth.pairs if pair["kind"] != "exact"]
    result.recall_all = _recall(near, found, answer["all_of_group"])
    alike = [pair for pair in near if pair["jaccard"] >= THRESHOLD]
    result.recall = _recall(alike, found, answer["all_of_group"])
    if cluster := answer["clusters"]:
        result.pairs_in_one_cluster = sum(cluster[pair["row"]] == cluster[pair["of"]] for pair in alike) / len(alike)
    exact = [pair for pair in truth.pairs if pair["kind"] == "exact"]
    result.recall_exact = _recall(exact, found, answer["all_of_group"])
    result.precision = _precision(truth, found, answer["all_of_group"])


def _recall(pairs: list[dict[str, Any]], found: set[int], all_of_group: bool) -> float:
    hits = [(pair["row"] in found) + (pair["of"] in found) for pair in pairs]
    return sum(hit == 2 if all_of_group else hit > 0 for hit in hits) / len(hits)


def _precision(truth: Truth, found: set[int], all_of_group: bool) -> float:
    """Share of the rows found that belong to a planted group; one of a group is not to be removed."""
    if not found:
        return 1.0
    sizes = Counter(truth.group.values())
    taken = Counter(truth.group[row] for row in found if row in truth.group)
    right = sum(count if all_of_group else min(count, sizes[first] - 1) for first, count in taken.items())
    return right / len(found)


def main() -> None:
    """Print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="contestants, by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        planted = write_rows(Path(directory), arguments.rows)
        names = [PRODUCT, *(name for name in arguments.only if name != PRODUCT)]
        figures = compare(planted, arguments.rows, arguments.runs, arguments.peers_python, names)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
