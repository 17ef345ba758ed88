"""The settings that would make a training fit, each with what it would need then."""

from dataclasses import dataclass
from typing import Any

from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection
from tasks.training.plan.plan import Plan, Planner, Work

_KEPT_SHARE = 0.9
"""So many of the own rows stay where shorter rows are advised."""
_SHORTEST_TOKENS = 16
"""The least that training.max_length_tokens takes."""


@dataclass(frozen=True)
class Advice:
    """One changed setting.

    Attributes:
        key: its name in the configuration.
        value: what it would be.
        plan: what the training would need then.
    """

    key: str
    value: Any
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """Return what a table or a script shows."""
        return {
            "key": f"training.{self.key}",
            "value": self.value,
            "total_bytes": self.plan.memory.total,
            "needed_bytes": self.plan.needed_bytes,
            "seconds": self.plan.seconds,
            "fits": self.plan.fits,
        }


def advise(planner: Planner, training: TrainingSection, work: Work, plan: Plan) -> list[Advice]:
    """Return what could be changed so that less is needed: what fits first, and of that the fastest first."""
    advice = [
        Advice(key, value, planner.changed(training, work, key, value)) for key, value in _changes(training, work, plan)
    ]
    saving = [each for each in advice if each.plan.memory.total < plan.memory.total]
    return sorted(saving, key=lambda each: (not each.plan.fits, each.plan.seconds))


def _changes(training: TrainingSection, work: Work, plan: Plan) -> list[tuple[str, Any]]:
    changes: list[tuple[str, Any]] = []
    longest = max(len(example) for example in work.examples)
    if plan.largest_rows > 1:
        changes.append(("micro_batch_tokens", max(longest, plan.largest_rows * plan.largest_tokens // 2)))
    if not training.activation_checkpointing and training.method not in ("prefix", "lora_prefix"):
        changes.append(("activation_checkpointing", True))
    if training.precision == "fp32":
        changes.append(("precision", "bf16"))
    if METHODS[training.method].parts == ("layers",) and training.method not in ("qlora", "ia3"):
        changes.append(("method", "qlora"))
    elif training.method == "full":
        changes += [("method", "lora"), ("method", "qlora")]
    # What is replayed is another text, and its length says nothing of the rows that the training is for.
    own, replayed = work.examples[: work.own_rows], work.examples[work.own_rows :]
    lengths = sorted(len(example) for example in own)
    shorter = lengths[int(_KEPT_SHARE * (len(lengths) - 1))]
    leaves_some = not replayed or any(len(example) <= shorter for example in replayed)
    if _SHORTEST_TOKENS <= shorter < longest and leaves_some:
        changes.append(("max_length_tokens", shorter))
    return changes
