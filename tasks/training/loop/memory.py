"""Memory while training: what a forward pass keeps, what is used, and whether an error says that it ran out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.loop.examples import Example

if TYPE_CHECKING:
    import torch

EAGER_ATTENTION_BYTES = 1_500_000_000
"""On a CPU, eager attention trains short rows faster than the fused kernel, whose backward pass is slow there; it keeps
all scores, so longer rows go through the kernel (DECISIONS.md)."""
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in a RuntimeError: of a CPU's memory, of CUDA's own allocations, of cuBLAS's."""


def attention_bytes(config: Any, batch: Sequence[Example]) -> int:
    """Return what eager attention keeps of a batch for the backward pass.

    Rows × heads × T² scores a layer, each as bf16 score, fp32 softmax and bf16 weight: 8 bytes.
    """
    longest = max(len(example) for example in batch)
    return len(batch) * int(config.num_attention_heads) * longest**2 * int(config.num_hidden_layers) * 8


def takes_eager_attention(device_type: str, config: Any, batch: Sequence[Example]) -> bool:
    """Say whether a batch goes through eager attention and not through the fused kernel."""
    return device_type == "cpu" and attention_bytes(config, batch) <= EAGER_ATTENTION_BYTES


def peak_bytes(device: "torch.device") -> int:
    """Return the most memory used so far: on a GPU what torch allocated, else the process's resident set."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return process_bytes("VmHWM")


def process_bytes(field: str) -> int:
    """Return a size from /proc/self/status: VmRSS is the resident set now, VmHWM the largest so far.

    Not getrusage's ru_maxrss: a process inherits it from the one that started it, however small it is itself.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, size = line.partition(":")
        if name == field:
            return int(size.split()[0]) * 1024
    raise KeyError(field)


def gpu_utilisation(device: "torch.device") -> int | None:
    """Return the percentage of the last second in which a GPU computed; None on a CPU and without nvidia-ml-py."""
    import torch

    if device.type != "cuda":
        return None
    try:
        return int(torch.cuda.utilization(device))
    except (ModuleNotFoundError, RuntimeError):  # nvidia-ml-py is not installed, or the driver does not tell
        return None


def ran_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that there was no memory left; only torch's own allocator of a GPU has a class."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)
