"""How fast a device multiplies matrices of a model's shapes, and so how long a training takes."""

import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.jsonl import digest_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Costs:
    """What a training step takes.

    Attributes:
        efficiency: share of the measured speed that the step's matrix products reach.
        bytes_per_second: at which everything that operations write is written.
        seconds_per_call: of an operation, however small.
    """

    efficiency: float
    bytes_per_second: float = math.inf
    seconds_per_call: float = 0.0

    def seconds(self, flops: float, moved_bytes: float, calls: float, speed: float) -> float:
        """Return the time of so much work on a device that multiplies at a speed in FLOP/s."""
        return flops / speed / self.efficiency + moved_bytes / self.bytes_per_second + calls * self.seconds_per_call


COSTS = {"cpu": Costs(0.8, 4.6e9, 100e-6), "cuda": Costs(0.40)}
"""cpu: fitted to 52 trainings of seven methods on two cores beside other work; four in five estimates were 0.68 to 1.16
of what was measured (DECISIONS.md). cuda: not measured by us; NVIDIA publishes 41 % for NeMo AutoModel."""
_PASSES = 5
_ENOUGH_SECONDS = 1.0
"""After so long no further pass is made: large layers on a busy CPU take seconds each."""


def flops_per_second(
    shape: tuple[int, int], tokens: int, place: "tuple[torch.device, torch.dtype]", cache: Path | None
) -> float:
    """Return the highest speed of (tokens, in) x (in, out) products that was measured on this machine so far.

    It is measured each time, or a first measurement beside other work would spoil all estimates after it. Beside other
    work (load 5) on two cores that took 0.1 to 0.5 s for layers of a 135M model and 5 to 8 s for those of an 8B one.

    Args:
        shape: in and out of a layer.
        tokens: rows of the product.
        place: device and precision.
        cache: a folder in the state directory that keeps it; None: what is measured now.
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
    speed = 2.0 * tokens * shape[0] * shape[1] / _seconds_of_a_product(shape, tokens, place)
    if cache is None:
        return speed
    kept = cache / f"{digest_of(facts)[:16]}.json"
    known = float(json.loads(kept.read_text(encoding="utf-8"))["flops_per_second"]) if kept.is_file() else 0.0
    if speed > known:
        _write(kept, {**facts, "flops_per_second": speed})
    return max(speed, known)


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
    seconds = [product()]
    while len(seconds) < _PASSES and sum(seconds) < _ENOUGH_SECONDS:
        seconds.append(product())
    return statistics.median(seconds)


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
