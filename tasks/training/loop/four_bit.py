"""Linear layers as bitsandbytes packs them to NF4 with double quantisation, in shape alone."""

from typing import Any

BLOCK = 64
"""Weights that share a scale (Dettmers et al., 2023, section 3)."""
SCALES_BLOCK = 256
"""Scales, one byte each, that share a scale of their own."""


def pack_without_weights(model: Any) -> None:
    """Replace the linear layers of a model on the meta device, all but the head, by 4-bit layers on the meta device."""
    import bitsandbytes as bnb
    from transformers.pytorch_utils import Conv1D

    from tasks.training.shape import linear_layers

    for name, layer in linear_layers(model).items():
        held = layer.get_parameter("weight")
        weight = held.T if isinstance(layer, Conv1D) else held  # GPT-2's layers hold it the other way round
        outputs, inputs = weight.shape
        packed = bnb.nn.Linear4bit(
            inputs,
            outputs,
            layer.bias is not None,
            weight.dtype,
            True,
            "nf4",
            device="meta",
        )
        packed.weight = _packed(weight)
        packed.support_avx512bf16_for_cpu = False
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, packed)
    model.is_loaded_in_4bit = True


def _packed(weight: Any) -> Any:
    import bitsandbytes as bnb
    import torch
    from bitsandbytes.functional import QuantState

    def empty(count: int, dtype: Any) -> Any:
        return torch.empty(count, dtype=dtype, device="meta")

    blocks = -(-weight.numel() // BLOCK)
    scales = QuantState(
        empty(-(-blocks // SCALES_BLOCK), torch.float32),
        code=empty(256, torch.float32),
        blocksize=SCALES_BLOCK,
        dtype=torch.float32,
    )
    state = QuantState(
        empty(blocks, torch.uint8),
        shape=weight.shape,
        code=empty(16, torch.float32),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=weight.dtype,
        offset=torch.empty((), device="meta"),
        state2=scales,
    )
    data = torch.empty((-(-weight.numel() // 2), 1), dtype=torch.uint8, device="meta")
    return bnb.nn.Params4bit(
        data, requires_grad=False, quant_state=state, blocksize=BLOCK, quant_type="nf4", bnb_quantized=True
    )
