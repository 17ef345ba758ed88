"""What an estimate means for a training: it fits, it may not, or it cannot; and which settings would change that.

Facts are those of the planning process, or of `Plan.to_json`, which knows of no advice.
"""

import json
from typing import Any

from tasks.contracts.errors import TrainingError

TOLERANCE = 1.15
"""An estimate may be so many times what is needed; the goal that `make bench-memory` holds it to."""
_SHOWN_SETTINGS = 3


def may_fit(needed_bytes: int, free_bytes: int) -> bool:
    """Say whether what is needed may be free, as an estimate can be too high."""
    return needed_bytes <= TOLERANCE * free_bytes


def refuse_what_cannot_fit(facts: dict[str, Any], method: str) -> None:
    """Refuse a training that needs more than is free even if the estimate is as much too high as it can be.

    Args:
        facts: of the plan.
        method: training.method.

    Raises:
        TrainingError: says what is needed, what there is, and what to change.
    """
    if facts["may_fit"]:
        return
    raise TrainingError(
        f"training.method {method} needs about {facts['needed_bytes'] / 1e9:.2f} GB and "
        f"{facts['free_bytes'] / 1e9:.2f} GB are free, with micro-batches of {facts['largest_rows']} x "
        f"{facts['largest_tokens']} tokens; {what_to_change(facts)}"
    )


def what_to_change(facts: dict[str, Any]) -> str:
    """Name the settings that would make a training fit, as the planning process found them."""
    if "advice" not in facts:
        return "llm-retrain plan names settings that need less"
    fitting = [each for each in facts["advice"] if each["fits"]]
    if fitting:
        return "it would fit with " + ", or ".join(map(_with_bytes, fitting[:_SHOWN_SETTINGS]))
    if facts["advice"]:
        least = min(facts["advice"], key=lambda each: each["total_bytes"])
        return f"no single setting makes it fit; {_with_bytes(least)} saves most"
    return "no setting needs less; take a smaller base_model.source or more memory"


def spelled_setting(advice: dict[str, Any]) -> str:
    """Spell a changed setting as --set takes it."""
    return f"{advice['key']}={json.dumps(advice['value']).strip(chr(34))}"


def spelled_price(advice: dict[str, Any]) -> str:
    """Say which rows a changed setting costs; empty if none."""
    kinds = {"rows_left_out": "left out", "rows_cut_off": "cut off"}
    return ", ".join(f"{advice[key]} of {advice['rows']} rows {word}" for key, word in kinds.items() if advice[key])


def _with_bytes(advice: dict[str, Any]) -> str:
    facts = (f"{advice['needed_bytes'] / 1e9:.2f} GB", spelled_price(advice))
    return f"{spelled_setting(advice)} ({', '.join(filter(None, facts))})"
