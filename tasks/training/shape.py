"""The base model without its weights: what can be known, and refused, before any weight is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection

if TYPE_CHECKING:
    import torch

_SHOWN_NAMES = 12


def model_without_weights(base: Path, tokens: int = 0, dtype: "torch.dtype | None" = None) -> Any:
    """Return the base model on torch's meta device: every layer with its shape, and no byte of a weight.

    Args:
        base: a directory with config.json.
        tokens: the vocabulary's size once new tokens are in it; 0: as it is.
        dtype: of the weights it would have; None: as the configuration says.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    config.vocab_size = max(config.vocab_size, tokens)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **({"dtype": dtype} if dtype else {}))


def linear_layers(model: Any) -> "dict[str, torch.nn.Module]":
    """Return the linear layers that can be adapted, by their full name: all but the head."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def check_training(model: Any, training: TrainingSection) -> None:
    """Refuse what the model's shape rules out.

    Raises:
        TrainingError: a context that virtual tokens fill, a target module that there is none of, a rank larger than a
            layer.
    """
    longest_row_tokens(model.config, training)
    if not training.chosen.adds_layers:
        return
    layers = linear_layers(model)
    last_names = sorted({name.rsplit(".", 1)[-1] for name in layers})
    for target in training.target_modules:
        if not any(_is_target(name, target) for name in layers):
            raise TrainingError(
                f"training.target_modules names {target!r}, and the base model has no such linear layer; expected some "
                f"of {', '.join(last_names[:_SHOWN_NAMES])}"
            )
    if training.method == "ia3":
        _check_ia3(model, training)
        return
    for name, layer in layers.items():
        shape = layer.get_parameter("weight").shape
        targeted = not training.target_modules or any(_is_target(name, target) for target in training.target_modules)
        if targeted and training.rank > min(shape):
            raise TrainingError(
                f"training.rank is {training.rank}, and {name} is a matrix of {shape[0]} by "
                f"{shape[1]}; expected at most {min(shape)}"
            )


def _check_ia3(model: Any, training: TrainingSection) -> None:
    """Refuse an architecture of which peft has no list of the layers that IA³ scales, if none are named."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING

    if not training.target_modules and model.config.model_type not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        raise TrainingError(
            f"training.method ia3 does not know the layers of {model.config.model_type}; name the layers of keys, "
            "values and the second of the feed-forward in training.target_modules"
        )


def teacher_context_tokens(teacher: Path, base: Path, training: TrainingSection) -> int:
    """Return how many tokens the teacher's context has.

    Raises:
        TrainingError: its tokenizer is another one than the base's, so that its opinions are about other tokens.
    """
    from transformers import AutoConfig, AutoTokenizer

    words = [AutoTokenizer.from_pretrained(model, trust_remote_code=False).get_vocab() for model in (teacher, base)]
    if words[0] != words[1]:
        raise TrainingError(
            f"training.teacher is {training.teacher!r}, whose vocabulary is not that of the base model; expected a "
            "model of the same family"
        )
    return int(AutoConfig.from_pretrained(teacher, trust_remote_code=False).max_position_embeddings)


def longest_row_tokens(config: Any, training: TrainingSection) -> int:
    """Return how many tokens a row may have: what is configured, or what the context has room for if that is less.

    Raises:
        TrainingError: virtual tokens leave no room.
    """
    context = int(config.max_position_embeddings)
    room = context - (training.virtual_tokens if training.chosen.has_virtual_tokens else 0)
    if room < 2:
        raise TrainingError(
            f"training.virtual_tokens is {training.virtual_tokens}, and the base model's context has {context} tokens; "
            f"expected at most {context - 2}"
        )
    return min(training.max_length_tokens, room)


def _is_target(name: str, target: str) -> bool:
    """Compare as peft does: the full name, or its end."""
    return name == target or name.endswith(f".{target}")
