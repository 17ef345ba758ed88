"""What a method puts on a base model, through peft: added layers, virtual tokens, or nothing."""

from typing import Any

from tasks.contracts.training_config import TrainingSection

PISSA = "pissa_niter_16"
"""PiSSA by fast singular value decomposition (Halko et al., 2011) with 16 iterations, as its authors use it."""
PREFIX_DEVIATION = 0.02
"""Standard deviation of a fresh prefix's keys and values. peft draws them with 1, which outshouts the model: from a
loss of 3.8 a training of 300 rows went to 4.4 at best, and with this to 3.1 (DECISIONS.md)."""


def with_added_layers(model: Any, training: TrainingSection, new_token_ids: list[int]) -> Any:
    """Return a peft model with fresh layers, which the training updates; the base's weights are frozen."""
    from peft import get_peft_model

    config = _ia3(training) if training.method == "ia3" else _lora(model, training, new_token_ids)
    # Without autocast, adapters in the base's dtype avoid two casts a layer; the optimizer keeps fp32 masters.
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def _lora(model: Any, training: TrainingSection, new_token_ids: list[int]) -> Any:
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=training.rank,
        lora_alpha=training.alpha,
        lora_dropout=training.dropout,
        use_rslora=training.method == "rslora",
        use_dora=training.method == "dora",
        init_lora_weights=PISSA if training.method == "pissa" else True,
        target_modules=list(training.target_modules) or "all-linear",
        trainable_token_indices=_embeddings_of(model, new_token_ids) if new_token_ids else None,
        task_type=TaskType.CAUSAL_LM,
    )


def _embeddings_of(model: Any, token_ids: list[int]) -> Any:
    """Name the rows that new tokens have: in the embedding, and in a head that has a weight of its own."""
    names = {module: name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embedding.weight:
        return {names[embedding].rsplit(".", 1)[-1]: token_ids}
    return {names[each].rsplit(".", 1)[-1]: token_ids for each in (embedding, head)}


def _ia3(training: TrainingSection) -> Any:
    from peft import IA3Config, TaskType
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEED_FORWARD

    if not training.target_modules:
        return IA3Config(task_type=TaskType.CAUSAL_LM)
    # Of these the inputs are scaled, of keys and values the outputs.
    known = {name.rsplit(".", 1)[-1] for names in FEED_FORWARD.values() for name in names}
    feed_forward = [name for name in training.target_modules if name.rsplit(".", 1)[-1] in known]
    return IA3Config(
        target_modules=list(training.target_modules), feedforward_modules=feed_forward, task_type=TaskType.CAUSAL_LM
    )


def with_virtual_tokens(model: Any, training: TrainingSection) -> Any:
    """Return a peft model around `model` that has fresh virtual tokens; what else is trained stays trained."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tokens: dict[str, Any] = {"num_virtual_tokens": training.virtual_tokens, "task_type": TaskType.CAUSAL_LM}
    if training.method == "prompt":
        config: Any = PromptTuningConfig(**tokens)
    elif training.method == "p_tuning":
        config = PromptEncoderConfig(**tokens, encoder_hidden_size=model.config.hidden_size)
    else:
        config = PrefixTuningConfig(**tokens)
    wrapped = get_peft_model(model, config)
    if isinstance(config, PrefixTuningConfig):
        for keys_and_values in wrapped.prompt_encoder.parameters():
            keys_and_values.data.mul_(PREFIX_DEVIATION)
    for parameter in trained if training.method == "lora_prefix" else ():
        parameter.requires_grad_(True)
    return wrapped
