"""What a run has to compute, and how fast the machine multiplies matrices of this model's shapes.

    python benchmarks/training_flops.py ORDER

Model FLOPs of a LoRA run: 4 for each frozen weight outside the embedding and each token (2 forward, 2 for the gradients
of the inputs; gradients of frozen weights do not exist), 4 for each weight of the head and each answer token, and
6 T² H D a layer and row for attention (two products forward, four backward, half of each under the causal mask). The
adapters' own products, norms, softmax and optimizer are not counted, and tokens that rows share count in every row.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

TOKENS_A_STEP = 800
"""Eight rows of the quickstart."""
BLOCKS, BLOCK_SECONDS, WEIGHTS = 20, 0.05, 30


def model_flops(order: dict[str, Any]) -> float:
    """Return the model FLOPs of one pass over the training rows."""
    config = json.loads((Path(order["base"]) / "config.json").read_text(encoding="utf-8"))
    lengths = [len(prompt) + len(answer) for prompt, answer in order["train"]]
    answers = sum(len(answer) for _, answer in order["train"])
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    weights = layers * sum(rows * columns for rows, columns in layer_shapes(config))
    size = config.get("head_dim") or config["hidden_size"] // heads
    attention = 6 * layers * heads * size * sum(length**2 for length in lengths)
    return float(4 * weights * sum(lengths) + 4 * config["vocab_size"] * config["hidden_size"] * answers + attention)


def layer_shapes(config: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (outputs, inputs) of the seven matrices of a layer."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    queries, keys = heads * size, config["num_key_value_heads"] * size
    return [
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        *[(inner, hidden)] * 2,
        (hidden, inner),
    ]


def measured_peak_gflops(shapes: list[tuple[int, int]]) -> float:
    """Return GFLOP/s that bf16 products of a step's tokens with these matrices sustain.

    Each shape at its fastest of several blocks of time, in which one weight after the other is taken, as a model does:
    a single product with a weight that is in the cache is up to four times as fast, and no training could be.
    """
    import torch

    seconds = work = 0.0
    for outputs, inputs in shapes:
        x = torch.randn(TOKENS_A_STEP, inputs).bfloat16()
        weights = [torch.randn(outputs, inputs).bfloat16() for _ in range(WEIGHTS)]
        seconds += min(_seconds_a_product(x, weights) for _ in range(BLOCKS))
        work += 2 * TOKENS_A_STEP * outputs * inputs
    return work / seconds / 1e9


def _seconds_a_product(x: Any, weights: list[Any]) -> float:
    import torch

    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < BLOCK_SECONDS:
        torch.nn.functional.linear(x, weights[count % len(weights)])
        count += 1
    return passed / count


if __name__ == "__main__":
    base = Path(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["base"])
    print(json.dumps({"gflops": measured_peak_gflops(layer_shapes(json.loads((base / "config.json").read_text())))}))
