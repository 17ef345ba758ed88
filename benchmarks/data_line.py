"""The whole line of the product, from a row set to a data version, in a process of its own.

    python benchmarks/data_line.py ROWS --home DIRECTORY [--similarity 0.8] [--tokenizer DIRECTORY]

Measured in turn: on all rows, on a tenth of them (does memory grow?), without near duplicates, and with every cleaning
step there is. Which planted near duplicates a build found is read from its files afterwards (build_recall.py). Memory
is that of the process and its workers together (peak_memory.py).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_rows import Planted, text_of
from peak_memory import run_watched

HERE = Path(__file__).parent
SIMILARITY = 0.8
STEPS: list[dict[str, Any]] = [{"step": step} for step in ("unicode", "whitespace", "html", "repetition", "personal")]
ALL_STEPS: list[dict[str, Any]] = [
    {"step": "unicode"},
    {"step": "html"},
    {"step": "replace", "name": "ticket numbers", "pattern": "#[0-9]{6}", "replacement": "#"},
    {"step": "terms", "terms": {"colour": "color", "e-mail": "email", "database": "data base", "研究": "探究"}},
    {"step": "whitespace"},
    {"step": "length", "min_answer_tokens": 4, "max_row_tokens": 512},
    {"step": "language", "keep": ["en", "zh"], "min_confidence": 0.9},
    {"step": "repetition"},
    {"step": "blocked", "words": ["casino", "lottery", "blackjack", "赌场", "彩票"]},
    {"step": "personal"},
]
"""All ten. Bounds in tokens are near the length of the rows, so that about half of them must be encoded."""
_TOKENIZER_ROWS, _TOKENIZER_TOKENS = 2_000, 8_000


@dataclass(frozen=True)
class Variant:
    """One way to run the line.

    Attributes:
        prefix: of its figures' names.
        rows: file of rows.
        similarity: data.near_duplicates.
        tokenizer: directory of one: ALL_STEPS run; None: STEPS run.
    """

    prefix: str
    rows: Path
    similarity: float = SIMILARITY
    tokenizer: Path | None = None


def measure(planted: Planted, rows: int, runs: int) -> dict[str, Any]:
    """Run every variant `runs` times, interleaved; return each figure's value in every run."""
    tenth = planted.rows.with_name("tenth.jsonl")
    with planted.rows.open("rb") as whole, tenth.open("wb") as file:
        file.writelines(line for line, _ in zip(whole, range(rows // 10), strict=False))
    variants = [
        Variant("", planted.rows),
        Variant("tenth_", tenth),
        Variant("no_near_", planted.rows, similarity=0),
        Variant("all_steps_", planted.rows, tokenizer=_train_tokenizer(planted.rows)),
    ]
    figures: dict[str, list[float]] = {}
    for _ in range(runs):
        for variant in variants:
            for key, value in _run(variant, planted).items():
                figures.setdefault(variant.prefix + key, []).append(value)
    return {**figures, "steps": STEPS, "all_steps": ALL_STEPS}


def table(line: dict[str, Any]) -> str:
    """Spell the figures."""
    shown = (
        *("rows_per_s", "mb_per_s_per_core", "reading_rows_per_s", "peak_mb"),
        *("tenth_rows_per_s", "tenth_peak_mb", "no_near_rows_per_s", "all_steps_rows_per_s", "all_steps_peak_mb"),
    )
    steps = ", ".join(step["step"] for step in line["steps"])
    lines = [f"whole line ({steps}, duplicates, split), {len(line['rows_per_s'])} runs"]
    lines += [f"  {key:24} {spread(line[key])}" for key in shown]
    for name, prefix in (("these steps", ""), (f"all {len(line['all_steps'])} steps", "all_steps_")):
        recall, across, pairs = (
            line[prefix + key][-1] for key in ("near_duplicate_recall", "near_pairs_across_the_split", "near_pairs")
        )
        lines.append(f"  of {pairs:,} planted near pairs, {name}: found {recall:.3f}, divided by the split {across}")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Spell the median and the range of several runs."""
    return f"{statistics.median(values):12,.1f}  ({min(values):,.1f} to {max(values):,.1f})"


def _run(variant: Variant, planted: Planted) -> dict[str, float]:
    from build_recall import near_duplicate_recall

    with tempfile.TemporaryDirectory(dir=variant.rows.parent) as home:
        command = [sys.executable, str(Path(__file__)), str(variant.rows), "--home", home]
        command += [
            "--similarity",
            str(variant.similarity),
            *(["--tokenizer", str(variant.tokenizer)] if variant.tokenizer else []),
        ]
        done, peak = run_watched(command, dict(os.environ))
        if done.returncode:
            raise SystemExit(done.stderr)
        answer = json.loads(done.stdout.splitlines()[-1])
        dataset = Path(answer.pop("dataset"))
        found: dict[str, float] = {}
        if variant.similarity:
            found = near_duplicate_recall(planted, variant.rows, variant.similarity, Path(home) / "store", dataset)
    memory = {"peak_mb": peak.all_mb, "own_peak_mb": peak.own_mb, "worker_peak_mb": peak.child_mb}
    return {**answer, **memory, **found}


def run_line(path: Path, home: Path, similarity: float, tokenizer: Path | None) -> dict[str, Any]:
    """Read, clean (personal data included), find duplicates, divide and write; return speed and the data version.

    The line is timed from the row set to the finished data version; reading is timed apart.
    """
    from tasks.contracts.artifacts import BaseModelRef
    from tasks.contracts.config import DataSection
    from tasks.contracts.home import Home
    from tasks.contracts.store import Store
    from tasks.data.build import build_dataset
    from tasks.data.ingest import Place, ingest

    place = Place(Home(home), Store(home / "store"))
    data = DataSection(
        sources=({"kind": "files", "path": str(path)},),
        cleaning=tuple(ALL_STEPS if tokenizer else STEPS),
        train_rows=10_000_000,
        eval_rows=1_000,
        near_duplicates=similarity,
    )
    base = BaseModelRef(path=tokenizer, digest="", source="trained on the rows") if tokenizer else None
    start = time.perf_counter()
    rows = ingest(data, place, data.sources)
    read = time.perf_counter()
    dataset = build_dataset(rows, None, data, place, base)
    seconds = time.perf_counter() - read
    megabytes, cores = path.stat().st_size / 1e6, len(os.sched_getaffinity(0))
    assert dataset.rows_read == rows.rows_read
    return {
        "rows_per_s": rows.rows_read / seconds,
        "mb_per_s_per_core": megabytes / seconds / cores,
        "reading_rows_per_s": rows.rows_read / (read - start),
        "rows_used": dataset.train_rows + dataset.eval_rows,
        "near_duplicates": dataset.rejected.get("near duplicate", 0),
        "exact_duplicates": dataset.rejected.get("exact duplicate", 0),
        "dataset": str(dataset.path),
    }


def _train_tokenizer(rows: Path) -> Path:
    """Train a byte-level tokenizer on some rows, as no model need be at hand; return its directory."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_TOKENIZER_TOKENS, initial_alphabet=alphabet, show_progress=False)
    with rows.open(encoding="utf-8") as file:
        texts = [text_of(json.loads(line)) for line, _ in zip(file, range(_TOKENIZER_ROWS), strict=False)]
    tokenizer.train_from_iterator(texts, trainer)
    directory = rows.with_name("tokenizer")
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def main() -> None:
    """Run the line once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--home", type=Path, required=True, help="an empty directory")
    parser.add_argument("--similarity", type=float, default=SIMILARITY)
    parser.add_argument("--tokenizer", type=Path, help="directory of one; with it all cleaning steps run")
    arguments = parser.parse_args()
    print(json.dumps(run_line(arguments.rows, arguments.home, arguments.similarity, arguments.tokenizer)))


if __name__ == "__main__":
    main()
