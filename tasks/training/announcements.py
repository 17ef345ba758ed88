"""What the user reads of a training's events, in the log of the flow; the curve has a place of its own."""

import logging
from collections.abc import Callable
from typing import Any

from tasks.training.plan.verdict import what_to_change

Event = dict[str, Any]

log = logging.getLogger("llm_retrain.training")


def announce(event: Event) -> None:
    """Log an event that a user wants to know of; not again what a resumed training repeats.

    Nor a training's own "plan": it was made before, and announced with what to change.
    """
    kind = event["event"]
    if event.get("again"):
        return
    if kind == "step" and event["gradient_norm"] is None:
        log.warning(
            "Step %d changed nothing: its gradients were too large for fp16 (%d such steps so far)",
            *(event["step"], event["skipped_steps"]),
        )
    elif kind in _LINES:
        level, line = _LINES[kind]
        log.log(level, "%s", line(event))


def announce_plan(facts: Event) -> None:
    """Log what a training will need beside what is free, and what to change if that is less.

    Args:
        facts: of the planning process.
    """
    line = (
        f"The training needs about {facts['needed_bytes'] / 1e9:.2f} GB, {facts['free_bytes'] / 1e9:.2f} GB are "
        f"free; about {facts['seconds']:.0f} s; at most {facts['largest_rows']} x {facts['largest_tokens']} tokens "
        "at a time"
    )
    if facts["fits"]:
        log.info("%s", line)
    else:
        log.warning("%s; that may be too much; %s", line, what_to_change(facts))


_LINES: dict[str, tuple[int, Callable[[Event], str]]] = {
    "measured": (
        logging.INFO,
        lambda event: (
            f"Peak memory {event['bytes'] / 1e9:.2f} GB, estimated {event['bytes'] * event['ratio'] / 1e9:.2f} "
            f"({event['ratio']:.2f} times as much); {event['seconds']:.0f} s of steps"
        ),
    ),
    "resumed": (
        logging.INFO,
        lambda event: (
            f"Training resumed from step {event['step']} of {event['total_steps']} (weights {event['digest'][:12]})"
        ),
    ),
    "smaller": (
        logging.WARNING,
        lambda event: (
            f"The memory ran out in step {event['step']}; it goes on with micro-batches of {event['to_tokens']} "
            f"instead of {event['from_tokens']} tokens, and the same rows a step"
        ),
    ),
    "early_stop": (
        logging.INFO,
        lambda event: (
            f"Training ended early after step {event['step']}: the validation loss was lowest at "
            f"{event['best_loss']:.4f}, and those weights are kept"
        ),
    ),
    "damaged_checkpoint": (
        logging.WARNING,
        lambda event: f"Checkpoint {event['name']} is damaged ({event['damage']}); set aside in {event['aside']}",
    ),
    "checkpoint_failed": (
        logging.WARNING,
        lambda event: (
            f"Step {event['step']} could not be saved ({event['reason']}); the training goes on, and after a crash "
            "from the checkpoint before"
        ),
    ),
}
