"""Estimated against measured peak memory of real training processes, over methods and sizes: `make bench-memory`.

Every line is a training process of its own: random weights, optimizer steps of rows that all have one length, or that
have many as real ones do, VmHWM of the process.
"""

import argparse
import itertools
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import WorkerOrder, follow


@dataclass(frozen=True)
class Size:
    """The shape of a Llama, and how its weights are stored."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    words: int
    stored: str


SIZES = {
    "0.1M": Size(64, 128, 2, 2, 2, 512, "float32"),
    "5M": Size(256, 704, 6, 8, 4, 4_096, "float32"),
    "31M": Size(384, 1_024, 12, 6, 2, 32_000, "bfloat16"),
    "135M": Size(576, 1_536, 30, 9, 3, 49_152, "bfloat16"),
}
METHODS = ("lora", "dora", "full", "prefix", "prompt", "ia3", "qlora")
STEPS = {"one": 3, "many": 16}
"""Optimizer steps of rows of one length, and of many: each step then has other shapes than those before."""


@dataclass(frozen=True)
class Case:
    """One line of the grid."""

    method: str
    size: str
    precision: str
    batch_rows: int
    checkpointing: bool
    lengths: str

    @property
    def training(self) -> TrainingSection:
        """Its settings."""
        return TrainingSection(
            method=self.method,
            precision=self.precision,
            device="cpu",
            batch_rows=self.batch_rows,
            micro_batch_tokens=4_096,
            activation_checkpointing=self.checkpointing,
            checkpoint_seconds=1e6,
        )


def make_model(folder: Path, size: Size, tokenizer: object) -> None:
    """Write a Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.words,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=2_048,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(getattr(torch, size.stored)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]


def measure(case: Case, models: Path, rows: Path, folder: Path) -> dict[str, Any]:
    """Train in a process of its own and return bytes and seconds, estimated and measured."""
    order = {
        "base": str(models / case.size),
        "base_name": case.size,
        "rows": str(rows),
        "replay": "",
        "teacher": "",
        "out": str(folder / "out"),
        "checkpoints": "",
        "speeds": str(folder / "speeds"),
        "training": case.training.model_dump(mode="json"),
        "system_prompt": "",
    }
    events = follow(WorkerOrder("tasks.training.process", order, folder / "log", TrainingError, ""))
    plan, done = (next(event for event in events if event["event"] == name) for name in ("plan", "measured"))
    return {
        "estimated_bytes": plan["total_bytes"],
        "measured_bytes": done["bytes"],
        "estimated_seconds": plan["seconds"],
        "measured_seconds": done["seconds"],
        "memory": plan["memory"],
    }


def grid(sizes: list[str], lengths: list[str]) -> list[Case]:
    """Return every method in both precisions, both batch sizes, with and without checkpointing where it can be."""
    return [
        Case(method, size, precision, batch_rows, checkpointing, spread)
        for spread, size, method, precision, batch_rows, checkpointing in itertools.product(
            lengths, sizes, METHODS, ("fp32", "bf16"), (2, 8), (False, True)
        )
        if not (checkpointing and method == "prefix")
    ]


def write_rows(path: Path, count: int, words: int, known: list[str], lengths: str) -> None:
    """Write rows whose words differ from the first on: what is equal would be computed once.

    Args:
        path: the file.
        count: rows.
        words: of the question, and of the answer; in the middle, where there are many lengths.
        known: words that are a token each, with the space before them.
        lengths: one, or many: log-normal, a question or an answer in six has over twice as many as that in the
            middle.
    """
    draw = random.Random(17)

    def text() -> str:
        drawn = min(6 * words, max(4, round(words * draw.lognormvariate(0, 0.7)))) if lengths == "many" else words
        return "".join(f" {draw.choice(known)}" for _ in range(drawn))

    turns = [[{"role": "user", "content": text()}, {"role": "assistant", "content": text()}] for _ in range(count)]
    write_jsonl(path, ({"id": f"{n:064d}", "messages": messages} for n, messages in enumerate(turns)))


def known_words(tokenizer: Any) -> list[str]:
    """Return the words that are one token of a byte-level tokenizer, whose tokens spell a space as Ġ."""
    words = (token.removeprefix("Ġ") for token in tokenizer.get_vocab() if token.startswith("Ġ"))
    return sorted(word for word in words if word.isascii() and word.isalpha())


def main() -> None:
    """Measure the grid, show it, and write var/bench/memory.json."""
    import sys

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--lengths", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th line only")
    parser.add_argument("--out", type=Path, default=Path("var/bench/memory.json"))
    chosen = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from tiny_model import make_tiny_tokenizer

    console, lines, tokenizer = Console(), [], make_tiny_tokenizer()
    settings = ("method", "size", "precision", "rows", "checkpointing", "lengths")
    table = Table(*settings, "estimated MB", "measured MB", "ratio", "s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in chosen.sizes:
            make_model(folder / size, SIZES[size], tokenizer)
        for case in grid(chosen.sizes, chosen.lengths)[:: chosen.every]:
            rows = folder / f"rows-{case.batch_rows}.jsonl"
            write_rows(rows, STEPS[case.lengths] * case.batch_rows, chosen.words, known_words(tokenizer), case.lengths)
            found = measure(case, folder, rows, folder)
            ratio = found["estimated_bytes"] / found["measured_bytes"]
            lines.append({**vars(case), **found, "ratio": ratio})
            sizes = (f"{found[key] / 1e6:.0f}" for key in ("estimated_bytes", "measured_bytes"))
            checkpointing = "yes" if case.checkpointing else ""
            cells = (case.method, case.size, case.precision, str(case.batch_rows), checkpointing, case.lengths)
            seconds = f"{found['measured_seconds']:.1f} ({found['estimated_seconds']:.1f})"
            table.add_row(*cells, *sizes, f"{ratio:.3f}", seconds)
            console.print(" ".join(cells), f"{ratio:.3f}", seconds)
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    console.print(table)
    ratios = [line["ratio"] for line in lines]
    console.print(f"{len(lines)} trainings, ratio {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
