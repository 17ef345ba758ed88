"""The learning rate over a run, as a function of the step alone: a resumed run needs nothing but the step's number."""

import math
from collections.abc import Callable


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float) -> float:
    return 1 - progress


def _constant(progress: float) -> float:
    return 1.0


_FALLS: dict[str, Callable[[float], float]] = {"cosine": _cosine, "linear": _linear, "constant": _constant}


def learning_rate_at(step: int, total_steps: int, peak: float, warmup_share: float, schedule: str = "cosine") -> float:
    """Return the learning rate of optimizer step `step` (0-based): linear warm-up, then down as `schedule` says.

    cosine: of Loshchilov and Hutter, 2017 (SGDR), without restarts. linear: to zero. constant: stays. inverse_sqrt: of
    Vaswani et al., 2017, with the square root of the steps since the start.
    """
    warmup_steps = max(1, round(total_steps * warmup_share))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "inverse_sqrt":
        return peak * math.sqrt(warmup_steps / (step + 1))
    return peak * _FALLS[schedule]((step - warmup_steps) / max(1, total_steps - warmup_steps))
