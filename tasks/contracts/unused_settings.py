"""Which settings of the training have no meaning beside the others, as the rank has none without LoRA."""

import logging
from typing import Any

from tasks.contracts.methods import LORA_METHODS
from tasks.contracts.training_config import TrainingSection

log = logging.getLogger("llm_retrain.training")


def unused_settings(training: TrainingSection) -> dict[str, str]:
    """Return the keys whose values change nothing, and why.

    A configuration may have them: a form sends every setting, and a champion's settings are laid under another method.
    """
    chosen, method = training.chosen, f"training.method {training.method}"
    objective = f"training.objective is {training.objective}"
    rules = (
        (training.method in LORA_METHODS, ("rank", "alpha", "dropout"), f"{method} has no LoRA layers"),
        (chosen.adds_layers, ("target_modules",), f"{method} adds no layers"),
        (chosen.has_virtual_tokens, ("virtual_tokens",), f"{method} has no virtual tokens"),
        (chosen.trains_weights, ("ewc_weight",), f"{method} leaves the base's weights as they are"),
        (bool(training.replay), ("ewc_weight", "replay_share"), "training.replay is empty"),
        (training.objective == "dpo", ("dpo_beta",), objective),
        (training.objective == "distillation", ("teacher", "teacher_weight", "temperature"), objective),
        (training.validation_rows > 0, ("validations", "patience"), "training.validation_rows is 0"),
        (training.nodes > 1, ("main_address", "main_port"), "training.nodes is 1"),
    )
    return {key: why for is_used, keys, why in rules if not is_used for key in keys}


def warn_of_unused_settings(training: TrainingSection) -> None:
    """Say which settings are not the defaults and change nothing; they may be a champion's with another method."""
    for key, why in unused_settings(training).items():
        value = getattr(training, key)
        if value != TrainingSection.model_fields[key].default:
            log.warning("training.%s is %r and changes nothing: %s", key, value, why)


def used_settings(training: TrainingSection, settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of `settings` that mean something when they are laid over `training`."""
    unused = unused_settings(training.model_copy(update=settings))
    return {key: value for key, value in settings.items() if key not in unused}
