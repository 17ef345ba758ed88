"""How fast a device multiplies matrices of a model's shapes, and so how long a training takes."""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.jsonl import digest_of

if TYPE_CHECKING:
    import torch

EFFICIENCY = {"cpu": 0.35, "cuda": 0.40}
"""Share of the measured speed that a whole training step reaches. cpu: a plain loop on a quiet machine had 325 of 900
tokens/s that matrix products alone allowed. cuda: not measured by us; NVIDIA publishes 41 % for NeMo AutoModel."""
_PASSES = 5


def flops_per_second(
    shape: tuple[int, int], tokens: int, place: "tuple[torch.device, torch.dtype]", cache: Path | None
) -> float:
    """Return the speed of (tokens, in) x (in, out) products, measured once for a machine and kept.

    Args:
        shape: in and out of a layer.
        tokens: rows of the product.
        place: device and precision.
        cache: a folder in the state directory; None: measured anew.
    """
    import torch

    device, dtype = place
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(dtype),
        "shape": [*shape, tokens],
    }
    kept = cache / f"{digest_of(facts)[:16]}.json" if cache is not None else None
    if kept is not None and kept.is_file():
        return float(json.loads(kept.read_text(encoding="utf-8"))["flops_per_second"])
    speed = 2.0 * tokens * shape[0] * shape[1] / _seconds_of_a_product(shape, tokens, place)
    if kept is not None:
        _write(kept, {**facts, "flops_per_second": speed})
    return speed


def _seconds_of_a_product(shape: tuple[int, int], tokens: int, place: "tuple[torch.device, torch.dtype]") -> float:
    import torch

    device, dtype = place
    rows = torch.randn(tokens, shape[0], device=device).to(dtype)
    weight = torch.randn(*shape, device=device).to(dtype)

    def product() -> float:
        started = time.perf_counter()
        rows @ weight
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    product()  # the first one chooses and loads a kernel
    return statistics.median(product() for _ in range(_PASSES))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Write by rename: another training may read it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, working = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(facts, file)
    Path(working).rename(path)
