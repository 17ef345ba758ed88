"""The product's training process on one CUDA device at the shapes of real models, with random weights and rows.

    make bench-gpu            # or: python benchmarks/gpu.py --steps 10

Nothing is fetched. Four runs: an 8B Llama in bf16 at 4,096 tokens a row, alone and four at a time; a 1B Llama over rows
as long as the quickstart's; the same in NF4 (QLoRA). Each is what a retraining runs: the plan, the loop, its events.
Prints tokens/s (padding not counted), the share of the device's measured bf16 matmul peak as model FLOPs
(benchmarks/training_flops.py), peak memory beside its estimate and utilisation, and writes var/bench/gpu.json.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_flops import model_flops

from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import WorkerOrder, follow

RESULT = Path(__file__).parents[1] / "var" / "bench" / "gpu.json"
ROW_TOKENS = (59, 73, 77, 79, 82, 85, 87, 89, 91, 93, 96, 99, 102, 106, 110, 114, 117, 121, 126, 134, 169)
"""Every twentieth of the lengths of the quickstart's 600 rows."""
WARM_STEPS = 3
WORDS = 1_000
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
_ROUND_IT = 5
"""Tokens of a row beside its answer's words: <user>, one word, <end>, <assistant> and the last <end>."""


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        name: as printed.
        shape: of `transformers.LlamaConfig`.
        lengths: tokens of each row of a step.
        method: lora or qlora.
        checkpointing: keep each layer's input only, and compute the rest again in the backward pass.
    """

    name: str
    shape: dict[str, Any]
    lengths: tuple[int, ...]
    method: str = "lora"
    checkpointing: bool = False


_LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
_LLAMA_1B = _LLAMA_8B | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64}
_LLAMA_1B["tie_word_embeddings"] = True
CASES = (
    Case("8B, bf16, rows of 4096", _LLAMA_8B, (4096,)),
    Case("8B, bf16, 4 rows of 4096, checkpointing", _LLAMA_8B, (4096,) * 4, checkpointing=True),
    Case("1B, bf16, quickstart's lengths", _LLAMA_1B, ROW_TOKENS * 6),
    Case("1B, NF4, quickstart's lengths", _LLAMA_1B, ROW_TOKENS * 6, method="qlora"),
)


def main() -> None:
    """Run the cases, print and write the figures; a case that fails leaves its reason."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="timed optimizer steps a run")
    steps = parser.parse_args().steps
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and PyTorch sees none; on a CPU use `make bench-train`")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "peak_tflops": measured_peak(8192) / 1e12}
    print(f"{found['device']}: bf16 matrix products {found['peak_tflops']:.0f} TFLOP/s", flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        try:
            figures = measure(case, "cuda", steps)
            figures["share_of_matmul_peak"] = figures["model_tflops_per_s"] / found["peak_tflops"]
        except TrainingError as error:
            figures = {"failed": str(error)}
        found[case.name] = figures
        print(f"{case.name}: {json.dumps(figures)}", flush=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(case: Case, device: str, steps: int) -> dict[str, Any]:
    """Train a case's model in the product's training process; return its figures.

    Raises:
        TrainingError: the training failed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=RESULT.parent) as name:
        folder = Path(name)
        make_base(case.shape, folder / "base", device)
        write_jsonl(folder / "rows.jsonl", rows_of(case.lengths, WARM_STEPS + steps))
        order = {
            "base": str(folder / "base"),
            "base_name": case.name,
            "rows": str(folder / "rows.jsonl"),
            "replay": "",
            "teacher": "",
            "out": str(folder / "out"),
            "checkpoints": "",
            "training": settings_of(case, device).model_dump(mode="json"),
            "system_prompt": "",
        }
        worker = WorkerOrder("tasks.training.process", order, folder / "log", TrainingError, "")
        return figures_of(case, follow(worker), folder / "base")


def settings_of(case: Case, device: str) -> TrainingSection:
    """Return the product's settings: LoRA of rank 16 on all projections, in bf16."""
    return TrainingSection.model_validate(
        {
            "method": case.method,
            "rank": 16,
            "alpha": 32,
            "epochs": 1,
            "batch_rows": len(case.lengths),
            "max_length_tokens": max(case.lengths),
            "activation_checkpointing": case.checkpointing,
            "precision": "bf16",
            "device": device,
        }
    )


def figures_of(case: Case, events: list[dict[str, Any]], base: Path) -> dict[str, Any]:
    """Return what a training's events say of its steps after the first ones.

    Rows of a length make a step, so steps differ; model FLOPs are taken as those of an average token.
    """
    taken = [event for event in events if event["event"] == "step"]
    plan, measured = (next(event for event in events if event["event"] == kind) for kind in ("plan", "measured"))
    warm, last = taken[WARM_STEPS - 1], taken[-1]
    tokens, seconds = last["tokens"] - warm["tokens"], last["seconds"] - warm["seconds"]
    order = {"base": str(base), "train": [([0] * (_ROUND_IT - 1), [0] * (n - _ROUND_IT + 1)) for n in case.lengths]}
    busy = [step["gpu_utilisation"] for step in taken[WARM_STEPS:] if step["gpu_utilisation"] is not None]
    return {
        "tokens_per_s": tokens / seconds,
        "seconds_a_step": seconds / (len(taken) - WARM_STEPS),
        "model_tflops_per_s": model_flops(order) / sum(case.lengths) * tokens / seconds / 1e12,
        "peak_gb": measured["bytes"] / 1e9,
        "estimated_peak_gb": plan["total_bytes"] / 1e9,
        "estimated_seconds_a_step": plan["seconds"] / len(taken),
        "micro_batch_tokens": last["micro_batch_tokens"],
        "utilisation_percent": statistics.mean(busy) if busy else None,
        "first_loss": taken[0]["loss"],
        "last_loss": last["loss"],
    }


def make_base(shape: dict[str, Any], folder: Path, device: str) -> None:
    """Write a Llama of random bf16 weights, and a tokenizer for which every word is one token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(LlamaConfig(**shape))
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    del model
    if device != "cpu":
        gc.collect()
        torch.cuda.empty_cache()  # the training is another process
    words = ["<pad>", "<user>", "<assistant>", "<end>"]
    words += [f"w{number}" for number in range(min(WORDS, shape["vocab_size"] - len(words)))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=_TEMPLATE
    ).save_pretrained(folder)


def rows_of(lengths: tuple[int, ...], steps: int) -> list[dict[str, Any]]:
    """Return rows of random words; those of a step have these numbers of tokens, nearly all of them learned."""
    draw = random.Random(0)
    rows = []
    for number, length in enumerate(lengths * steps):
        question, *answer = (f"w{draw.randrange(40)}" for _ in range(length - _ROUND_IT + 1))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": " ".join(answer)}]
        rows.append({"id": f"{number:064d}", "messages": turns, "slice": "all"})
    return rows


def measured_peak(size: int, repeats: int = 20) -> float:
    """Return FLOP/s of square bf16 products on the CUDA device, the fastest of some."""
    import torch

    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    del left, right
    torch.cuda.empty_cache()  # the training is another process
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main()
