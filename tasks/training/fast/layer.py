"""The two halves of a decoder layer, attention and feed-forward, each with a backward pass written by hand.

Each is one autograd function: `h + f(norm(h))` over packed rows (M, K). It saves the residual stream, the inputs of the
matrix products, which the adapters' gradients need, and little more; gradients of frozen weights do not exist.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tasks.training.fast.attention import Attended, Heads, Places, attend, attend_backward
from tasks.training.fast.rms_norm import normalise, normalise_backward

if TYPE_CHECKING:
    from tasks.training.fast.projection import Projection


@dataclass(frozen=True)
class Norm:
    """A frozen weight (K,) in fp32, and what is added to the mean square."""

    weight: torch.Tensor
    epsilon: float


@dataclass(frozen=True)
class AttentionHalf:
    """Norm, query-key-value projection, heads, output projection."""

    norm: Norm
    inputs: "Projection"
    heads: Heads
    output: "Projection"

    def __call__(self, hidden: torch.Tensor, places: Places, kept: "torch.Tensor | None" = None) -> torch.Tensor:
        """(M, K) → (M, K), or only the tokens `kept`: their attention still sees all tokens."""
        adapters = [*self.inputs.parameters, *self.output.parameters]
        result: torch.Tensor = _Attention.apply(hidden, self, places, kept, *adapters)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True)
class FeedForwardHalf:
    """Norm, gate and up projection, SwiGLU (Shazeer, 2020), down projection."""

    norm: Norm
    inputs: "Projection"
    output: "Projection"

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """(M, K) → (M, K)."""
        adapters = [*self.inputs.parameters, *self.output.parameters]
        result: torch.Tensor = _FeedForward.apply(hidden, self, *adapters)  # type: ignore[no-untyped-call]
        return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, half: AttentionHalf, places: Places, kept: "torch.Tensor | None", *_: Any
    ) -> torch.Tensor:
        x = half.inputs.input_for(len(hidden))
        inverse = normalise(hidden, half.norm.weight, half.norm.epsilon, x[:, : half.inputs.inputs])
        mixed, attended = attend(half.inputs.forward(x), half.heads, places)
        residual = hidden
        if kept is not None:
            mixed, residual = mixed[kept], hidden[kept]
        y = half.output.input_for(len(mixed))
        y[:, : half.output.inputs] = mixed
        ctx.save_for_backward(hidden, x, inverse, y, attended.queries, attended.keys, attended.values, attended.weights)
        ctx.half, ctx.places, ctx.kept = half, places, kept
        return half.output.forward(y).add_(residual)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        half, places, kept = ctx.half, ctx.places, ctx.kept
        hidden, x, inverse, y, *attended = ctx.saved_tensors
        of_mixed, of_output = half.output.backward(gradient, y)
        if kept is not None:
            of_mixed = torch.zeros_like(hidden[:, :1]).expand(-1, of_mixed.shape[1]).index_put((kept,), of_mixed)
            gradient = torch.zeros_like(hidden).index_put_((kept,), gradient)
        of_qkv = attend_backward(of_mixed, Attended(*attended), half.heads, places)
        wants_hidden = ctx.needs_input_grad[0]
        of_x, of_inputs = half.inputs.backward(of_qkv, x, wants_hidden)
        of_hidden = None
        if wants_hidden:
            of_hidden = normalise_backward(of_x, hidden, half.norm.weight, inverse).add_(gradient).to(hidden.dtype)
        return of_hidden, None, None, None, *of_inputs, *of_output


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, half: FeedForwardHalf, *_: Any) -> torch.Tensor:
        x = half.inputs.input_for(len(hidden))
        inverse = normalise(hidden, half.norm.weight, half.norm.epsilon, x[:, : half.inputs.inputs])
        both = half.inputs.forward(x)
        width = half.output.inputs
        opened = torch.nn.functional.silu(both[:, :width])
        y = half.output.input_for(len(hidden))
        torch.mul(opened, both[:, width:], out=y[:, :width])
        ctx.save_for_backward(hidden, x, inverse, both, opened, y)
        ctx.half = half
        return half.output.forward(y).add_(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        half = ctx.half
        hidden, x, inverse, both, opened, y = ctx.saved_tensors
        width = half.output.inputs
        of_y, of_output = half.output.backward(gradient, y)
        of_both = torch.empty_like(both)
        torch.mul(of_y, opened, out=of_both[:, width:])
        torch.ops.aten.silu_backward.grad_input(
            of_y.mul_(both[:, width:]), both[:, :width], grad_input=of_both[:, :width]
        )
        wants_hidden = ctx.needs_input_grad[0]
        of_x, of_inputs = half.inputs.backward(of_both, x, wants_hidden)
        of_hidden = None
        if wants_hidden:
            of_hidden = normalise_backward(of_x, hidden, half.norm.weight, inverse).add_(gradient).to(hidden.dtype)
        return of_hidden, None, *of_inputs, *of_output
