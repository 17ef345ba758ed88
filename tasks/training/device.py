"""Which device trains, and in which precision it is at home."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection

if TYPE_CHECKING:
    import torch


def choose_device(training: TrainingSection) -> "tuple[torch.device, torch.dtype]":
    """Return the device and the dtype of the base weights.

    Raises:
        TrainingError: training.device is "cuda" and there is no CUDA device.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if training.device == "cuda" and not has_gpu:
        raise TrainingError("training.device is 'cuda', but PyTorch sees no CUDA device; use 'auto' or 'cpu'")
    device = torch.device("cuda" if has_gpu and training.device != "cpu" else "cpu")
    if training.precision == "auto":
        on_gpu = device.type == "cuda"
        fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_computes_bf16()
        return device, torch.bfloat16 if fast_bf16 else torch.float16 if on_gpu else torch.float32
    return device, {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[training.precision]


def cpu_computes_bf16() -> bool:
    """Say whether the CPU multiplies bf16 itself (AVX512-BF16 or AMX); without, bf16 is emulated and slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
