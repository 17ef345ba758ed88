"""The fast way through a peft model: recognises what it can compute, and computes the answers' losses.

Nothing is added to the model: gradients go to peft's own parameters, so saving, resuming, clipping and the optimizer
are as ever. Frozen weights move into larger matrices, of which they become views; a plain forward pass stays possible.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.training.loop.examples import Example

if TYPE_CHECKING:
    import torch

    from tasks.training.fast.attention import Places
    from tasks.training.fast.layer import Norm
    from tasks.training.fast.projection import LoraLinear

FAMILIES = ("llama", "mistral", "qwen2")
"""Their decoder layers are the same but for biases: pre-norm, rotary attention with grouped keys, SwiGLU."""
SCORE_BYTES = 1_500_000_000
"""What attention may keep of a batch; longer rows take the plain way, through PyTorch's fused kernel."""


def why_not_fast(model: Any) -> str | None:
    """Say why a peft model must take the plain way, or None if it need not."""
    import torch

    config = model.config
    if config.model_type not in FAMILIES:
        return f"model_type {config.model_type}"
    if any(p.device.type not in ("cpu", "meta") for p in model.parameters()):
        return "it is not on the CPU"
    if getattr(config, "hidden_act", None) != "silu":
        return f"hidden_act {config.hidden_act}"
    if getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None):
        return "sliding-window attention"
    if (
        "dynamic" in str(config.rope_parameters.get("rope_type"))
        or config.rope_parameters.get("rope_type") == "longrope"
    ):
        return "rotary positions that depend on the length"
    if config.attention_dropout:
        return "attention dropout"
    if getattr(model.get_base_model().model, "gradient_checkpointing", False):
        return "checkpointing of activations"
    found: set[int] = set()
    for layer in model.get_base_model().model.layers:
        attention, feed_forward = layer.self_attn, layer.mlp
        modules = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
        modules += [getattr(feed_forward, f"{name}_proj") for name in ("gate", "up", "down")]
        for module in modules:
            reason = _why_not_linear(module, torch.nn.Linear)
            if reason:
                return reason
            linear = _lora_linear(module)
            found |= {id(p) for p in (linear.a, linear.b) if p is not None}
    others = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in found]
    return f"{others[0]} is trained too" if others else None


def _why_not_linear(module: Any, plain: type) -> str | None:
    if module._forward_hooks or module._forward_pre_hooks:
        return "a hook on a layer"
    if type(module) is plain:
        return None
    from peft.tuners.lora import Linear

    if type(module) is not Linear or type(module.base_layer) is not plain:
        return f"layers of type {type(getattr(module, 'base_layer', module)).__name__}"
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters:
        return "several adapters, or none"
    name = module.active_adapters[0]
    if getattr(module.lora_dropout[name], "p", 0.0):
        return "dropout"
    if name in module.lora_variant or module.lora_B[name].bias is not None:
        return "a variant of LoRA with a forward pass of its own"
    return None


def _lora_linear(module: Any) -> "LoraLinear":
    from tasks.training.fast.projection import LoraLinear

    if not hasattr(module, "base_layer"):
        return LoraLinear(module, None, None, 1.0)
    name = module.active_adapters[0]
    return LoraLinear(
        module.base_layer, module.lora_A[name].weight, module.lora_B[name].weight, float(module.scaling[name])
    )


class FastModel:
    """A peft model that `why_not_fast` has nothing against."""

    def __init__(self, model: Any) -> None:
        from tasks.training.fast.attention import Heads
        from tasks.training.fast.layer import AttentionHalf, FeedForwardHalf
        from tasks.training.fast.projection import Projection

        base = model.get_base_model()
        self._trunk, self._head = base.model, base.lm_head
        self._dtype: torch.dtype = self._trunk.embed_tokens.weight.dtype
        self._query_heads, self._layers_count = int(model.config.num_attention_heads), len(self._trunk.layers)
        self._layers: list[tuple[AttentionHalf, FeedForwardHalf]] = []
        self._projections: list[Projection] = []
        for layer in self._trunk.layers:
            attention, feed_forward = layer.self_attn, layer.mlp
            groups = [
                Projection([_lora_linear(module) for module in modules])
                for modules in (
                    (attention.q_proj, attention.k_proj, attention.v_proj),
                    (attention.o_proj,),
                    (feed_forward.gate_proj, feed_forward.up_proj),
                    (feed_forward.down_proj,),
                )
            ]
            heads = Heads(
                queries=self._query_heads,
                keys=int(model.config.num_key_value_heads),
                size=int(attention.head_dim),
                scaling=float(attention.scaling),
            )
            self._projections += groups
            self._layers.append(
                (
                    AttentionHalf(_norm(layer.input_layernorm), groups[0], heads, groups[1]),
                    FeedForwardHalf(_norm(layer.post_attention_layernorm), groups[2], groups[3]),
                )
            )
        self._leave_the_file(model)

    def _leave_the_file(self, model: Any) -> None:
        """Copy the frozen weights that are in no group: one tensor that lies in the mapped file keeps all its pages."""
        grouped = {layer.base.weight for projection in self._projections for layer in projection.layers}
        for weight in set(model.parameters()) - grouped:
            if not weight.requires_grad:
                weight.data = weight.data.clone()

    def fits(self, batch: Sequence[Example]) -> bool:
        """Say whether the batch's attention weights may be kept."""
        from tasks.training.fast.rows import attention_scores

        scores = attention_scores(batch) * self._query_heads * self._layers_count
        return scores * self._dtype.itemsize <= SCORE_BYTES

    def target_losses(self, batch: Sequence[Example]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the loss of each answer token in nats and the example it belongs to: (N,) fp32, (N,)."""
        from tasks.training.fast.cross_entropy import TargetLosses
        from tasks.training.fast.rows import pack_rows

        rows = pack_rows(batch).to(self._head.weight.device)
        places = self._places(rows)
        for projection in self._projections:
            projection.refresh()
        hidden = self._trunk.embed_tokens(rows.ids)
        for attention, feed_forward in self._layers[:-1]:
            hidden = feed_forward(attention(hidden, places))
        attention, feed_forward = self._layers[-1]
        # Little but the tokens before targets goes on from here; the last layer's feed-forward need not see the others.
        hidden = feed_forward(attention(hidden, places, rows.leaving))
        losses: torch.Tensor = TargetLosses.apply(  # type: ignore[no-untyped-call]
            self._trunk.norm(hidden), self._head.weight, rows.targets
        )
        return losses[: len(rows.row_of_target)], rows.row_of_target

    def _places(self, rows: Any) -> "Places":
        import torch

        from tasks.training.fast.attention import Places

        like = self._head.weight.new_empty(0, dtype=self._dtype)
        cosine, sine = self._trunk.rotary_emb(like, rows.positions[None])
        half = sine.shape[-1] // 2
        sine = torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)
        mask = like.new_zeros(rows.hidden_keys.shape).masked_fill_(rows.hidden_keys, -torch.inf)
        return Places(rows, cosine[0][:, None], sine[0][:, None], mask[:, None])


def _norm(module: Any) -> "Norm":
    from tasks.training.fast.layer import Norm

    # A copy in fp32 too: an alias would hold on to the mapped file.
    return Norm(module.weight.detach().float().clone(), float(module.variance_epsilon))
