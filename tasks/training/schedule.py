"""The learning rate over a run."""

import math


def learning_rate_at(step: int, total_steps: int, peak: float, warmup_share: float) -> float:
    """Return the learning rate of optimizer step `step` (0-based): linear warm-up, then cosine down to zero.

    The cosine is that of Loshchilov and Hutter, 2017 (SGDR) without restarts.
    """
    warmup_steps = max(1, round(total_steps * warmup_share))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
