"""Causal attention of packed rows with rotary positions, grouped keys and a common beginning that all rows share.

Short rows are cheaper as a padded batch of plain matrix products than through a fused kernel, whose backward pass is
slow on a CPU. Queries that share a key head stand in one matrix: keys and values are not repeated.

Shapes: M tokens; B rows of T places, P shared keys before them; G key heads, each with n queries, of D numbers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.training.fast.rows import PackedRows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Heads:
    """How many heads: H queries, G keys and values, D numbers each; scores are multiplied by `scaling`."""

    queries: int
    keys: int
    size: int
    scaling: float


@dataclass(frozen=True)
class Places:
    """What attention needs to know of a batch, made once for all layers.

    Attributes:
        rows: the batch.
        cosine: (M, 1, D) of the rotary positions.
        sine: (M, 1, D), its first half negative: what the other half of a vector is multiplied by.
        mask: (B, 1, T, P + T), 0 or minus infinity.
    """

    rows: PackedRows
    cosine: "torch.Tensor"
    sine: "torch.Tensor"
    mask: "torch.Tensor"


@dataclass(frozen=True)
class Attended:
    """What the backward pass needs: queries (B·G, n·T, D), keys and values (B·G, P + T, D), weights between them."""

    queries: "torch.Tensor"
    keys: "torch.Tensor"
    values: "torch.Tensor"
    weights: "torch.Tensor"


def attend(qkv: "torch.Tensor", heads: Heads, places: Places) -> "tuple[torch.Tensor, Attended]":
    """(M, (H + 2 G)·D) → (M, H·D). Overwrites its input."""
    import torch

    mask, shared = places.mask, places.rows.shared_tokens
    rows, _, longest, _ = mask.shape
    each = heads.queries // heads.keys
    split = qkv.view(len(qkv), -1, heads.size)  # (M, H + 2 G, D)
    turned = split[:, : heads.queries + heads.keys]
    turned.copy_(_rotate(turned, places.cosine, places.sine))
    padded = split.index_select(0, places.rows.to_padded).view(rows, longest, -1, heads.size).transpose(1, 2)
    q = padded[:, : heads.queries].reshape(rows * heads.keys, each * longest, heads.size).mul_(heads.scaling)
    k = _with_shared(padded[:, heads.queries : -heads.keys], shared)
    v = _with_shared(padded[:, -heads.keys :], shared)
    scores = q @ k.transpose(1, 2)
    scores.view(rows, heads.queries, longest, -1).add_(mask)
    weights = torch.softmax(scores, dim=-1)
    out = (weights @ v).view(rows, heads.queries, longest, heads.size).transpose(1, 2)
    out = out.reshape(rows * longest, -1).index_select(0, places.rows.from_padded)
    return out, Attended(q, k, v, weights)


def attend_backward(gradient: "torch.Tensor", attended: Attended, heads: Heads, places: Places) -> "torch.Tensor":
    """Return the gradient of `attend`'s input from that of its output."""
    import torch

    mask, shared = places.mask, places.rows.shared_tokens
    rows, _, longest, _ = mask.shape
    padded = gradient.new_zeros(rows * longest, heads.queries * heads.size)
    padded.index_copy_(0, places.rows.from_padded, gradient)
    of_out = padded.view(rows, longest, heads.queries, heads.size).transpose(1, 2).reshape(attended.queries.shape)
    of_weights = of_out @ attended.values.transpose(1, 2)
    of_values = attended.weights.transpose(1, 2) @ of_out
    of_scores = torch._softmax_backward_data(of_weights, attended.weights, -1, gradient.dtype)
    of_queries = (of_scores @ attended.keys).mul_(heads.scaling)
    of_keys = of_scores.transpose(1, 2) @ attended.queries
    whole = gradient.new_empty(rows, heads.queries + 2 * heads.keys, longest, heads.size)
    whole[:, : heads.queries] = of_queries.view(rows, heads.queries, longest, heads.size)
    _add_shared(of_keys, whole[:, heads.queries : -heads.keys], shared)
    _add_shared(of_values, whole[:, -heads.keys :], shared)
    out = whole.transpose(1, 2).reshape(rows * longest, -1).index_select(0, places.rows.from_padded)
    turned = out.view(len(out), -1, heads.size)[:, : heads.queries + heads.keys]
    turned.copy_(_rotate(turned, places.cosine, -places.sine))
    return out


def _rotate(x: "torch.Tensor", cosine: "torch.Tensor", sine: "torch.Tensor") -> "torch.Tensor":
    """Turn each pair of numbers, which stand half a head apart, by the angle of its position (Su et al., 2021)."""
    half = x.shape[-1] // 2
    out = x * cosine
    out[..., :half].addcmul_(x[..., half:], sine[..., :half])
    out[..., half:].addcmul_(x[..., :half], sine[..., half:])
    return out


def _with_shared(own: "torch.Tensor", shared: int) -> "torch.Tensor":
    """Put the keys of the common beginning, which are those of the first row, before each row's own.

    (B, G, T, D) → (B·G, P + T, D)
    """
    import torch

    rows, groups, longest, size = own.shape
    start = own[:1, :, :shared].expand(rows, -1, -1, -1)
    return torch.cat([start, own], dim=2).view(rows * groups, shared + longest, size)


def _add_shared(gradient: "torch.Tensor", own: "torch.Tensor", shared: int) -> None:
    """Write the gradient of `_with_shared`'s input to `own` (B, G, T, D)."""
    rows, groups, _, size = own.shape
    split = gradient.view(rows, groups, -1, size)
    own.copy_(split[:, :, shared:])
    if shared:
        own[0, :, :shared] += split[:, :, :shared].sum(dim=0)
