"""The settings that would make a training fit, each with what it would need then."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tasks.contracts.errors import TrainingError
from tasks.contracts.methods import METHODS
from tasks.contracts.training_config import TrainingSection
from tasks.training.device import choose_device
from tasks.training.loop.examples import fitted
from tasks.training.loop.trainee import Place
from tasks.training.plan.plan import Plan, Planner, Work

_KEPT_SHARE = 0.9
"""So many of the own rows stay where shorter rows are advised."""

_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}


@dataclass(frozen=True)
class Advice:
    """One changed setting.

    Attributes:
        key: its name in the configuration.
        value: what it would be.
        plan: what the training would need then.
        rows: the data set's rows that are trained on now.
        rows_left_out: those of them that would not be any more.
        rows_cut_off: those that would be without the end of their answer.
    """

    key: str
    value: Any
    plan: Plan
    rows: int
    rows_left_out: int = 0
    rows_cut_off: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what a table or a script shows."""
        return {
            "key": f"training.{self.key}",
            "value": self.value,
            "total_bytes": self.plan.memory.total,
            "needed_bytes": self.plan.needed_bytes,
            "seconds": self.plan.seconds,
            "fits": self.plan.fits,
            "rows": self.rows,
            "rows_left_out": self.rows_left_out,
            "rows_cut_off": self.rows_cut_off,
        }


def advise(planner: Planner, training: TrainingSection, work: Work, plan: Plan) -> list[Advice]:
    """Return what could be changed so that less is needed: what fits first, and of that the fastest first."""
    advice = []
    changes = [_changed(planner, training, work, key, value) for key, value in _changes(training, work)]
    for changed in (_smaller_micro_batches(planner, training, work, plan), *changes):
        if changed is not None and changed.plan.memory.total < plan.memory.total:
            advice.append(changed)
    return sorted(advice, key=lambda each: (not each.plan.fits, each.plan.seconds))


def _changed(planner: Planner, training: TrainingSection, work: Work, key: str, value: Any) -> Advice | None:
    """Plan with one setting changed; None if the configuration, the device or the model's shape refuses that."""
    try:
        changed = TrainingSection.model_validate({**training.model_dump(), key: value})
        place = Place(*choose_device(changed))
        if key != "max_length_tokens":
            return Advice(key, value, planner.plan_other(changed, work, place), work.own_rows)
        rows = _shortened(work, value, changed.long_rows)
        left_out = work.own_rows - rows.own_rows
        longer = sum(len(example) > value for example in work.examples[: work.own_rows])
        plan = planner.plan_other(changed, rows, place)
        return Advice(key, value, plan, work.own_rows, rows_left_out=left_out, rows_cut_off=longer - left_out)
    except (ValidationError, TrainingError):
        return None


def _smaller_micro_batches(planner: Planner, training: TrainingSection, work: Work, plan: Plan) -> Advice | None:
    """Name the largest half of a half … that fits, or else the smallest one, which is one row at a time.

    What is needed falls with every half, so not all of them are planned.
    """
    if plan.largest_rows < 2:
        return None
    longest = max(len(example) for example in work.examples)
    values = [max(longest, plan.largest_rows * plan.largest_tokens // 2)]
    while values[-1] > longest:
        values.append(max(longest, values[-1] // 2))
    planned: dict[int, Advice | None] = {}

    def fits(value: int) -> bool:
        planned[value] = advice = _changed(planner, training, work, "micro_batch_tokens", value)
        return advice is not None and advice.plan.fits

    found = bisect_left(values, True, key=fits)
    chosen = values[min(found, len(values) - 1)]
    if chosen not in planned:
        fits(chosen)
    return planned[chosen]


def _changes(training: TrainingSection, work: Work) -> list[tuple[str, Any]]:
    """Return what may need less; whether it can be at all is not asked here."""
    changes: list[tuple[str, Any]] = []
    longest = max(len(example) for example in work.examples)
    if not training.activation_checkpointing:
        changes.append(("activation_checkpointing", True))
    if training.precision == "fp32":
        changes += _precision_at_home(training)
    if METHODS[training.method].parts == ("layers",) and training.method not in ("qlora", "ia3"):
        changes.append(("method", "qlora"))
    elif training.method == "full":
        changes += [("method", "lora"), ("method", "qlora")]
    return [*changes, *_shorter_rows(work, longest)]


def _precision_at_home(training: TrainingSection) -> list[tuple[str, Any]]:
    """Name the precision of two bytes that the device computes itself, if there is one."""
    _, dtype = choose_device(training.model_copy(update={"precision": "auto"}))
    return [("precision", name) for name in ("bf16", "fp16") if str(dtype) == _DTYPES[name]]


def _shorter_rows(work: Work, longest: int) -> list[tuple[str, Any]]:
    """Name the length that most own rows have: what is replayed is another text, and says nothing of them."""
    own, replayed = work.examples[: work.own_rows], work.examples[work.own_rows :]
    lengths = sorted(len(example) for example in own)
    shorter = lengths[int(_KEPT_SHARE * (len(lengths) - 1))]
    leaves_some = not replayed or any(len(example) <= shorter for example in replayed)
    return [("max_length_tokens", shorter)] if shorter < longest and leaves_some else []


def _shortened(work: Work, longest: int, long_rows: str) -> Work:
    fitting = [fitted(example, longest, long_rows) for example in work.examples]
    own = sum(example is not None for example in fitting[: work.own_rows])
    return Work([example for example in fitting if example is not None], own)
