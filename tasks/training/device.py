"""Which device trains, and in which precision it is at home."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection

if TYPE_CHECKING:
    import torch


def choose_device(training: TrainingSection) -> "tuple[torch.device, torch.dtype]":
    """Return the device and the dtype of the base weights.

    Raises:
        TrainingError: training.device is "cuda" and there is no CUDA device; training.precision is "fp16" on a CPU;
            training.method is "qlora" and bitsandbytes does not run here; training.ewc_weight is set and it is fp16.
    """
    import torch

    device, dtype = _choose(training)
    if training.ewc_weight and dtype == torch.float16:
        raise TrainingError(
            f"training.ewc_weight is {training.ewc_weight:g}, and training.precision {training.precision} is fp16 on "
            "this device, in which the squared gradients of single rows vanish; expected bf16 or fp32"
        )
    return device, dtype


def _choose(training: TrainingSection) -> "tuple[torch.device, torch.dtype]":
    import torch

    has_gpu = torch.cuda.is_available()
    if training.device == "cuda" and not has_gpu:
        raise TrainingError("training.device is 'cuda', but PyTorch sees no CUDA device; use 'auto' or 'cpu'")
    device = torch.device("cuda" if has_gpu and training.device != "cpu" else "cpu")
    if training.precision == "fp16" and device.type == "cpu":
        raise TrainingError(
            "training.precision is 'fp16', which GPUs train in, and the device is a CPU; expected bf16, fp32 or auto"
        )
    if training.method == "qlora":
        check_bitsandbytes(device.type)
    if training.precision == "auto":
        on_gpu = device.type == "cuda"
        fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_computes_bf16()
        return device, torch.bfloat16 if fast_bf16 else torch.float16 if on_gpu else torch.float32
    return device, {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[training.precision]


def check_bitsandbytes(device_type: str) -> None:
    """Refuse a machine on which bitsandbytes cannot pack weights into 4 bits.

    Raises:
        TrainingError: it is not installed, or has no library for this device.
    """
    try:
        import bitsandbytes
        from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary
    except ImportError as error:
        raise TrainingError(
            f"training.method is 'qlora', which needs bitsandbytes ({error}); install it or choose lora"
        ) from error
    devices = {device.split(":")[0] for device in bitsandbytes.supported_torch_devices}
    has_library = not isinstance(bitsandbytes.cextension.lib, ErrorHandlerMockBNBNativeLibrary)
    if device_type not in devices or not has_library:
        raise TrainingError(
            f"training.method is 'qlora', and bitsandbytes {bitsandbytes.__version__} has no library for "
            f"{device_type} on this machine; expected training.method lora, or another training.device"
        )


def cpu_computes_bf16() -> bool:
    """Say whether the CPU multiplies bf16 itself (AVX512-BF16 or AMX); without, bf16 is emulated and slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def gpus_at_hand() -> int:
    """Count the NVIDIA GPUs that this process may use, without loading PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return present if visible is None else min(present, len([name for name in visible.split(",") if name.strip()]))
