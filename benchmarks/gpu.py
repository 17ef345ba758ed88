"""LoRA training on one CUDA device at the shapes of real models, with random weights: nothing is fetched.

    make bench-gpu            # or: python benchmarks/gpu.py --steps 10

Three runs: an 8B Llama in bf16 at 4,096 tokens a row; a 1B Llama over rows as long as the quickstart's; the same in NF4
(QLoRA). Prints tokens/s (padding not counted), the share of the device's measured bf16 matmul peak as model FLOPs
(benchmarks/training_flops.py), peak memory and utilisation, and writes var/bench/gpu.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_flops import layer_shapes

if TYPE_CHECKING:
    import torch

RESULT = Path(__file__).parents[1] / "var" / "bench" / "gpu.json"
ROW_TOKENS = (59, 73, 77, 79, 82, 85, 87, 89, 91, 93, 96, 99, 102, 106, 110, 114, 117, 121, 126, 134, 169)
"""Every twentieth of the lengths of the quickstart's 600 rows."""
WARM_STEPS = 3


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        name: as printed.
        shape: of `transformers.LlamaConfig`.
        lengths: tokens of each row of a step.
        four_bit: load the base in NF4 by bitsandbytes.
        checkpointing: keep each layer's input only, and compute the rest again in the backward pass.
    """

    name: str
    shape: dict[str, Any]
    lengths: tuple[int, ...]
    four_bit: bool = False
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
    Case("1B, NF4, quickstart's lengths", _LLAMA_1B, ROW_TOKENS * 6, four_bit=True),
)


def main() -> None:
    """Run the cases that fit on the device and write the figures."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="timed optimizer steps a run")
    steps = parser.parse_args().steps
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and PyTorch sees none; on a CPU use `make bench-train`")
    device = torch.device("cuda")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "peak_tflops": measured_peak(device, 8192) / 1e12}
    print(f"{found['device']}: bf16 matrix products {found['peak_tflops']:.0f} TFLOP/s", flush=True)
    for case in CASES:
        try:
            figures = measure(case, device, steps)
        except torch.OutOfMemoryError:
            figures = {"failed": "out of memory"}
        else:
            figures["share_of_matmul_peak"] = figures["model_tflops_per_s"] / found["peak_tflops"]
        found[case.name] = figures
        print(f"{case.name}: {json.dumps(figures)}", flush=True)
        torch.cuda.empty_cache()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(case: Case, device: "torch.device", steps: int) -> dict[str, Any]:
    """Train a case's model for some steps on random tokens; return its figures, times of every step."""
    import torch

    model = build(case, device)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    losses: list[float] = []
    with Utilisation() as utilisation:
        for step in range(WARM_STEPS + steps):
            started = time.perf_counter()
            loss = step_loss(model, case, device)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())  # waits for the device
            if step >= WARM_STEPS:
                seconds.append(time.perf_counter() - started)
    fastest = statistics.median(seconds)
    return {
        "tokens_per_s": sum(case.lengths) / fastest,
        "seconds_a_step": sorted(seconds),
        "model_tflops_per_s": case_flops(case) / fastest / 1e12,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
        "utilisation_percent": statistics.mean(utilisation.seen) if utilisation.seen else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def build(case: Case, device: "torch.device") -> Any:
    """Return a model of random weights with a fresh adapter of rank 16 on all projections."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(LlamaConfig(**case.shape, use_cache=False))
    finally:
        torch.set_default_dtype(before)
    if case.four_bit:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            del model
            settings = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            )
            model = AutoModelForCausalLM.from_pretrained(
                folder, quantization_config=settings, dtype=torch.bfloat16, device_map={"": str(device)}
            )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).train()
    if case.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def step_loss(model: Any, case: Case, device: "torch.device") -> "torch.Tensor":
    """Return the mean loss of all next tokens of a step; the logits never exist all at once."""
    import torch

    from tasks.training.fast.cross_entropy import TargetLosses

    rows, longest = len(case.lengths), max(case.lengths)
    ids = torch.randint(case.shape["vocab_size"], (rows, longest), device=device)
    attended = torch.arange(longest, device=device) < torch.tensor(case.lengths, device=device)[:, None]
    base = model.get_base_model()
    # Without padding no mask is given, and the fused kernel takes its causal path.
    mask = None if min(case.lengths) == longest else attended.long()
    hidden = base.model(input_ids=ids, attention_mask=mask).last_hidden_state
    wanted = attended[:, 1:]
    losses = TargetLosses.apply(hidden[:, :-1][wanted], base.lm_head.weight, ids[:, 1:][wanted])
    return losses.mean()


def case_flops(case: Case) -> float:
    """Return the model FLOPs of a step, as benchmarks/training_flops.py counts them; every token is learned."""
    shape, tokens = case.shape, sum(case.lengths)
    size = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    weights = shape["num_hidden_layers"] * sum(rows * columns for rows, columns in layer_shapes(shape))
    weights += shape["vocab_size"] * shape["hidden_size"]
    scores = shape["num_hidden_layers"] * shape["num_attention_heads"] * size * sum(n**2 for n in case.lengths)
    return float(4 * weights * tokens + 6 * scores)


def measured_peak(device: "torch.device", size: int, repeats: int = 20) -> float:
    """Return FLOP/s of square bf16 products, the fastest of some."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


@dataclass
class Utilisation:
    """What nvidia-smi says of the device, once a second while the block runs; nothing where there is none."""

    seen: list[float] = field(default_factory=list)

    def __enter__(self) -> "Utilisation":
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        command = shutil.which("nvidia-smi")
        while command and not self._ended.wait(1.0):
            asked = [command, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
            if said and said[0].isdigit():
                self.seen.append(float(said[0]))


if __name__ == "__main__":
    main()
