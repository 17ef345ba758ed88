"""The search space: what a sweep may try, checked before anything is trained, and a trial's settings laid over it."""

from collections.abc import Collection, Iterator
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from tasks.contracts.config import RetrainConfig, validate_config
from tasks.contracts.errors import ConfigError, EnvironmentProblem
from tasks.contracts.sweep_config import Dimension, SweepSection, choices_of, is_whole, outermost_values
from tasks.contracts.unused_settings import unused_settings, used_settings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = dict[str, Any]

_TRIED_COMBINATIONS = 1_000
"""So many combinations with other values are tried before a value counts as one that nothing fits."""

_ANY_MEMORY = {
    *("learning_rate", "schedule", "warmup_share", "weight_decay", "max_gradient_norm", "alpha", "seed", "validations"),
    *("dpo_beta", "teacher_weight", "temperature"),
}
"""Trials that differ in these alone need the same memory, but for the chance of a long batch in less than an epoch."""


def decides_memory(searched: Collection[str]) -> bool:
    """Say whether trials that differ in these settings may need different memory."""
    return bool(set(searched) - _ANY_MEMORY)


def check_sweep(config: RetrainConfig) -> None:
    """Refuse a sweep that could not end, or compare, or train; none of it takes the device.

    Raises:
        ConfigError: names the key.
        EnvironmentProblem: Optuna is not installed.
    """
    sweep = config.sweep
    if not sweep.space:
        raise ConfigError(
            "sweep.space is empty; expected training keys with their values, for example "
            "learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}"
        )
    if not sweep.trials and not sweep.hours:
        raise ConfigError("sweep.trials and sweep.hours are 0, so the sweep would never end; expected one of them")
    if not config.training.validation_rows:
        raise ConfigError(
            "training.validation_rows is 0, and a sweep compares trials by the loss on training rows that are held "
            "out; expected at least 1, better 32"
        )
    if config.training.nodes > 1:
        raise ConfigError(
            f"training.nodes is {config.training.nodes}, and a sweep trains on one machine: llm-retrain join takes "
            "part in one training and ends; expected 1, and training.main_address empty"
        )
    for key, dimension in sweep.space.items():
        _check_use(config, key)
        for value in outermost_values(key, dimension):
            _check_value(config, key, value)
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            "a sweep needs Optuna, which is not installed; install the extra sweep: "
            "pip install --constraint constraints.txt --editable '.[sweep]'"
        ) from error


def with_settings(config: RetrainConfig, settings: Settings) -> RetrainConfig:
    """Return the configuration with a trial's settings in its training section.

    What its method does not use stays as configured, so that two trials which differ in that alone are one training.

    Raises:
        ConfigError: they do not fit together, or the engine cannot serve what they would make.
    """
    values = config.model_dump(mode="json")
    used = used_settings(config.training, settings)
    return validate_config({**values, "training": {**values["training"], **used}})


def distributions(space: dict[str, Dimension]) -> "dict[str, BaseDistribution]":
    """Return the space in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for key, dimension in space.items():
        low, high = dimension.low, dimension.high
        if low is None or high is None:
            made[key] = CategoricalDistribution(choices_of(key, dimension))
        elif is_whole(key):
            made[key] = IntDistribution(int(low), int(high), log=dimension.log)
        else:
            made[key] = FloatDistribution(low, high, log=dimension.log)
    return made


def count_settings(space: dict[str, Dimension]) -> int | None:
    """Return how many different settings the space has; None if a real number makes them uncountable."""
    count = 1
    for key, dimension in space.items():
        if dimension.low is not None and dimension.high is not None:
            if not is_whole(key):
                return None
            count *= int(dimension.high) - int(dimension.low) + 1
        else:
            count *= len(dimension.choices)
    return count


def configured_settings(config: RetrainConfig) -> Settings | None:
    """Return the settings that the configuration has without a sweep, or None if they lie outside the space."""
    settings = _searched_settings(config)
    inside = all(_is_inside(key, dimension, settings[key]) for key, dimension in config.sweep.space.items())
    return settings if inside else None


def planned_settings(config: RetrainConfig) -> RetrainConfig:
    """Return settings that a trial can have, to plan a sweep by: configured ones, or the first that the space has."""
    settings = _searched_settings(config)
    for key, dimension in config.sweep.space.items():
        if not _is_inside(key, dimension, settings[key]):
            settings[key] = outermost_values(key, dimension)[0]
    try:
        return with_settings(config, settings)
    except ConfigError:  # they do not fit together: trials will have others, and each is refused by itself
        return config


def _searched_settings(config: RetrainConfig) -> Settings:
    values = {**config.training.model_dump(mode="json"), "learning_rate": config.training.peak_learning_rate}
    return {key: values[key] for key in config.sweep.space}


def most_epochs(config: RetrainConfig) -> float:
    """Return the passes over the rows of the longest trial."""
    dimension = config.sweep.space.get("epochs")
    if dimension is None:
        return config.training.epochs
    return float(dimension.high if dimension.high is not None else max(choices_of("epochs", dimension)))


def trials_or_minutes(sweep: SweepSection) -> int:
    """Return the length of the progress bar: trials, or minutes where no number of trials is set."""
    return sweep.trials or max(1, round(sweep.hours * 60))


def _is_inside(key: str, dimension: Dimension, value: Any) -> bool:
    if dimension.low is None or dimension.high is None:
        return value in choices_of(key, dimension)
    return bool(dimension.low <= value <= dimension.high)


def _check_use(config: RetrainConfig, key: str) -> None:
    """Refuse a key whose value changes nothing in any combination: its trials would be one training."""
    reasons: dict[str, None] = {}
    for settings in _combinations(config, key):
        reason = unused_settings(config.training.model_copy(update=settings)).get(key)
        if reason is None:
            return
        reasons[reason] = None
    raise ConfigError(f"sweep.space.{key} would change nothing: {', '.join(reasons)}; leave it out")


def _check_value(config: RetrainConfig, key: str, value: Any) -> None:
    """Refuse a choice, or an end of a range, that fits no combination of the others."""
    problem: ConfigError | None = None
    for others in _combinations(config, key):
        settings = {**others, key: value}
        if key not in used_settings(config.training, settings):
            continue
        try:
            with_settings(config, settings)
            return
        except ConfigError as error:
            problem = error
    kind = "choice" if config.sweep.space[key].choices else "end"
    raise ConfigError(f"sweep.space.{key} has the {kind} {value!r}, which nothing fits: {problem}") from problem


def _combinations(config: RetrainConfig, key: str) -> Iterator[Settings]:
    """Yield choices and ends of ranges of all keys but one; the method changes first: it decides what is used."""
    others = [(other, dimension) for other, dimension in config.sweep.space.items() if other != key]
    others.sort(key=lambda other: (other[0] == "method", bool(other[1].choices)))
    values = [outermost_values(*other) for other in others]
    for combination in islice(product(*values), _TRIED_COMBINATIONS):
        yield dict(zip((name for name, _ in others), combination, strict=True))
