"""Cross-entropy of the answers' tokens, whose logits never exist all at once.

The gradient of the hidden states is computed along with the loss, chunk by chunk, as in Liger Kernel (Hsu et al.,
2024): the logits of a chunk are used twice and forgotten. The head is frozen.
"""

from typing import Any

import torch

CHUNK_TOKENS = 128
"""At a vocabulary of 49,152 the logits of so many tokens are 25 MB in fp32."""


class TargetLosses(torch.autograd.Function):
    """(N, K) hidden states, (V, K) frozen head, (N,) targets → (N,) losses in nats, fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the losses and, for each token, the gradient of its own loss."""
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradients = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            places = targets[part, None]
            logits = (hidden[part] @ head.T).float()
            highest, at = logits.max(dim=-1, keepdim=True)
            of_target = logits.gather(1, places)
            shares = torch.softmax(logits, dim=-1, out=logits)
            # log Σ exp from the highest logit and its share, which is never small; a pass less than logsumexp.
            losses[part] = (highest - shares.gather(1, at).log_() - of_target).squeeze(1)
            if ctx.needs_input_grad[0]:
                shares.scatter_add_(1, places, shares.new_full(places.shape, -1.0))
                gradients[part] = shares.to(hidden.dtype) @ head
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, weights: torch.Tensor) -> tuple[Any, ...]:
        """Scale each token's gradient by how much its loss counts."""
        (gradients,) = ctx.saved_tensors
        return (gradients * weights[:, None]).to(gradients.dtype), None, None
