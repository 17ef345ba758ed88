"""The section `sweep` of the configuration: which training settings are searched, how, and for how long."""

import difflib
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tasks.contracts.section import Section
from tasks.contracts.training_config import TrainingSection

Value = bool | int | float | str

_CHANGES_THE_LOSS = frozenset({"objective", "dpo_beta", "teacher", "teacher_weight", "temperature"})
_CHANGES_THE_ROWS = frozenset(
    {"max_length_tokens", "long_rows", "new_tokens", "validation_rows", "validations", "patience"}
)
_CHANGES_NO_WEIGHT = frozenset({"checkpoint_seconds", "device", "processes", "sharding"})
_SAYS_WHERE = frozenset({"nodes", "main_address", "main_port"})


class Dimension(Section):
    """The values that one setting may take: a list of choices, or all from `low` to `high`."""

    choices: tuple[Value, ...] = Field((), description="the values to choose from; a list alone says the same")
    low: float | None = Field(None, description="the lowest value")
    high: float | None = Field(None, description="the highest value")
    log: bool = Field(False, description="whether orders of magnitude are equally likely, as for learning rates")

    @model_validator(mode="before")
    @classmethod
    def _list_of_choices(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return {"choices": given}
        if isinstance(given, dict | Dimension):
            return given
        raise ValueError("expected a list of choices, or low and high")


class SweepSection(Section):
    """A search for the training settings with the lowest loss on held-out training rows."""

    space: dict[str, Dimension] = Field(
        {},
        description=(
            "training key → its values: a list of choices, or {low: , high: , log: true}; whole numbers stay whole"
        ),
    )
    trials: int = Field(20, ge=0, description="trials that end, well or not, after which the sweep ends; 0: no limit")
    hours: float = Field(
        0, ge=0, description="hours of training, all trials together, after which it ends; 0: no limit"
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="stops trials early that do worse: than the median of the others, or by Hyperband"
    )
    startup_trials: int = Field(
        5, ge=1, description="trials drawn at random before the sampler (TPE) and the median pruner go by the others"
    )
    seed: int = Field(17, ge=0, description="of the sampler")

    @model_validator(mode="after")
    def _has_values_that_training_takes(self) -> "SweepSection":
        for key, dimension in self.space.items():
            problem = _problem_of_key(key) or _problem_of(key, dimension)
            if problem:
                raise ValueError(problem)
        return self


def is_whole(key: str) -> bool:
    """Say whether a training key takes whole numbers."""
    return _number_type(key) is int


def choices_of(key: str, dimension: Dimension) -> list[Any]:
    """Return the choices as the training section reads them: YAML takes 1e-4 for a text."""
    return [_field_of(key).validate_python(choice) for choice in dimension.choices]


def outermost_values(key: str, dimension: Dimension) -> list[Any]:
    """Return the choices, or the two ends of a range, as the training section reads them."""
    if dimension.low is None or dimension.high is None:
        return choices_of(key, dimension)
    return [_field_of(key).validate_python(end) for end in (dimension.low, dimension.high)]


def _problem_of_key(key: str) -> str:
    name = f"sweep.space.{key}"
    if key not in TrainingSection.model_fields:
        close = difflib.get_close_matches(key, TrainingSection.model_fields, n=1)
        return f"{name} is not a key of training" + (f"; did you mean {close[0]}?" if close else "")
    if key in _CHANGES_THE_LOSS:
        return f"{name} would change what the loss is, so trials could not be compared by it; set training.{key}"
    if key in _CHANGES_THE_ROWS:
        return (
            f"{name} would change which rows the loss is measured on, or when, so trials could not be compared by it; "
            f"set training.{key}"
        )
    if key == "replay":
        return (
            f"{name} would change which rows are replayed, which are made once before all trials; set training.replay, "
            "and search replay_share"
        )
    if key in _SAYS_WHERE:
        return f"{name} says which machines train together, and a sweep trains on one; leave it out"
    return f"{name} changes no weight; set training.{key}" if key in _CHANGES_NO_WEIGHT else ""


def _problem_of(key: str, dimension: Dimension) -> str:
    name, low, high = f"sweep.space.{key}", dimension.low, dimension.high
    if dimension.choices:
        if low is not None or high is not None or dimension.log:
            return f"{name} has choices and a range; expected one of them"
        problem = next(filter(None, (_problem_of_value(key, choice) for choice in dimension.choices)), "")
        if not problem and len(set(choices_of(key, dimension))) < len(dimension.choices):
            return f"{name} is {list(dimension.choices)!r}; expected different choices"
        return problem
    if low is None or high is None:
        return f"{name} has no values; expected a list of choices, or low and high"
    if _number_type(key) is None:
        return f"{name} has a range, and training.{key} takes no numbers; expected a list of choices"
    if low >= high:
        return f"{name} goes from {low:g} to {high:g}; expected low below high"
    if dimension.log and low <= 0:
        return f"{name}.low is {low:g}, which has no logarithm; expected more than 0, or log: false"
    return _problem_of_value(key, low) or _problem_of_value(key, high)


def _problem_of_value(key: str, value: Value) -> str:
    """Ask the training section's own field; it would take true for 1."""
    shown = f"sweep.space.{key} has the value " + (f"{value:g}" if isinstance(value, float) else repr(value))
    if _number_type(key) is not None and isinstance(value, bool):
        return f"{shown}: expected a number"
    try:
        _field_of(key).validate_python(value)
    except ValidationError as error:
        return f"{shown}: {error.errors()[0]['msg']}"
    return ""


def _field_of(key: str) -> TypeAdapter[Any]:
    field = TrainingSection.model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind)


def _number_type(key: str) -> type[int] | type[float] | None:
    """Return int or float if that is what a training key takes, None if it takes something else."""
    annotation: Any = TrainingSection.model_fields[key].annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((kind for kind in (int, float) if kind in kinds), None)
