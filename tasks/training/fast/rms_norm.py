"""Root mean square norm (Zhang and Sennrich, 2019) with a frozen weight, computed in fp32 as transformers does."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def normalise(x: "torch.Tensor", weight: "torch.Tensor", epsilon: float, out: "torch.Tensor") -> "torch.Tensor":
    """Write x / rms(x) · weight to `out` and return 1 / rms(x). (M, K), (K,), (M, K) → (M, 1) in fp32."""
    import torch

    wide = x.float()
    inverse: torch.Tensor = (
        torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    )
    out.copy_((wide * inverse).mul_(weight))
    return inverse


def normalise_backward(
    gradient: "torch.Tensor", x: "torch.Tensor", weight: "torch.Tensor", inverse: "torch.Tensor"
) -> "torch.Tensor":
    """Return the gradient of x (M, K) in fp32 from that of the output; the weight is frozen."""
    unit = x.float() * inverse
    wide = gradient.float().mul_(weight)
    along = (wide * unit).mean(dim=-1, keepdim=True)
    return wide.addcmul_(unit, along, value=-1).mul_(inverse)
