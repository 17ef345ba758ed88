"""LoRA linear layers that read the same input, as one matrix product in each direction.

peft computes x Wᵀ + s (x Aᵀ) Bᵀ for each layer with four products and two additions. Here the layers of a group (query,
key and value; gate and up) stand in one matrix [W B], whose input is [x, s x Aᵀ]: one large product forward, and one
backward, which yields the gradients of x (but for A's part) and of s x Aᵀ together. A group's B matrices are blocks on
a diagonal: a layer's output depends on its own A only.

Shapes: M tokens, K inputs, N outputs of all layers of the group, R the sum of their ranks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LoraLinear:
    """One linear layer and its adapter; `a` (r, K) and `b` (N, r) are None in a layer that has none."""

    base: Any
    a: "torch.nn.Parameter | None"
    b: "torch.nn.Parameter | None"
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return 0 if self.a is None else int(self.a.shape[0])


class Projection:
    """A group of layers. Their frozen weights move into the group's matrix and are views of it from then on."""

    def __init__(self, layers: list[LoraLinear]) -> None:
        import torch

        self.layers = layers
        first = layers[0].base.weight
        self.inputs = int(first.shape[1])
        self.rank = sum(layer.rank for layer in layers)
        outputs = sum(int(layer.base.weight.shape[0]) for layer in layers)
        self._both = first.new_zeros(outputs, self.inputs + self.rank)  # [W B]
        self._a = first.new_zeros(self.rank, self.inputs + self.rank)  # [s A, 0]
        row = 0
        for layer in layers:
            rows = slice(row, row + layer.base.weight.shape[0])
            self._both[rows, : self.inputs] = layer.base.weight.data
            layer.base.weight.data = self._both[rows, : self.inputs]
            row = rows.stop
        biases = [layer.base.bias for layer in layers]
        self._bias = None
        if any(bias is not None for bias in biases):
            self._bias = torch.cat(
                [
                    first.new_zeros(layer.base.weight.shape[0]) if bias is None else bias.data
                    for layer, bias in zip(layers, biases, strict=True)
                ]
            )
        self._seen: list[tuple[int, int]] = []

    @property
    def parameters(self) -> "list[torch.nn.Parameter]":
        """A and B of every layer, in the order in which `backward` returns their gradients."""
        return [p for layer in self.layers for p in (layer.a, layer.b) if p is not None]

    def refresh(self) -> None:
        """Take over the adapters' values, if they have changed since the last time."""
        versions = [(p.data_ptr(), p._version) for p in self.parameters]
        if versions == self._seen:
            return
        row = column = 0
        for layer in self.layers:
            outputs, ranks = int(layer.base.weight.shape[0]), slice(column, column + layer.rank)
            if layer.a is not None and layer.b is not None:
                self._both[row : row + outputs, self.inputs + ranks.start : self.inputs + ranks.stop] = layer.b.data
                self._a[ranks, : self.inputs] = layer.a.data * layer.scaling
            row, column = row + outputs, ranks.stop
        self._seen = versions

    def input_for(self, tokens: int) -> "torch.Tensor":
        """Return an empty input [x, s x Aᵀ] (M, K + R); the caller fills the first K columns."""
        buffer: torch.Tensor = self._both.new_empty(tokens, self.inputs + self.rank)
        buffer[:, self.inputs :] = 0
        return buffer

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        """(M, K + R) → (M, N). Fills the last R columns of its input, which `backward` wants back as it is then."""
        import torch

        if self.rank:
            x[:, self.inputs :] = x @ self._a.T
        return torch.nn.functional.linear(x, self._both, self._bias)

    def backward(
        self, gradient: "torch.Tensor", x: "torch.Tensor", wants_input: bool = True
    ) -> "tuple[torch.Tensor | None, list[torch.Tensor]]":
        """Return the gradient of x (M, K), if it is wanted, and those of `parameters`.

        Args:
            gradient: (M, N) of the output.
            x: (M, K + R) the input, as `forward` left it.
            wants_input: whether anything before this layer is trained.
        """
        import torch

        k = self.inputs
        if wants_input:
            both = gradient @ self._both
            of_low = both[:, k:].contiguous()
            of_x = torch.addmm(both[:, :k], of_low, self._a[:, :k]) if self.rank else both
        else:
            of_low = gradient @ self._both[:, k:]
            of_x = None
        if not self.rank:
            return of_x, []
        of_a = of_low.T @ x  # (R, K + R)
        of_b = (x[:, k:].T @ gradient).T  # (N, R); this way round the larger matrix is not transposed first
        gradients = []
        row = column = 0
        for layer in self.layers:
            outputs, ranks = int(layer.base.weight.shape[0]), slice(column, column + layer.rank)
            if layer.a is not None:
                gradients.append(of_a[ranks, :k] * layer.scaling)
                gradients.append(of_b[row : row + outputs, ranks].contiguous())
            row, column = row + outputs, ranks.stop
        return of_x, gradients
