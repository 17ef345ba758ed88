"""Base and adapter become plain weights, and keys and values for what cannot be merged into weights.

A stage imports no other stage, so what training wrote is recognised by its files: `config.json` is a whole model,
`adapter_config.json` added layers or virtual tokens (peft's layout), and `tokenizer.json` a tokenizer with new tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.hidden_modules import hidden_modules

if TYPE_CHECKING:
    import torch

_VIRTUAL_KINDS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")


@dataclass(frozen=True)
class Merged:
    """What serves an adapter.

    Attributes:
        model: the causal language model, in fp32.
        tokenizer_directory: where the tokenizer is that belongs to it.
        prefix: keys and values of the virtual tokens, "key.0", "value.0" and so on, each (1, heads, tokens, head size);
            empty without virtual tokens.
        prefix_tokens: how many there are.
    """

    model: Any
    tokenizer_directory: Path
    prefix: "dict[str, torch.Tensor]"
    prefix_tokens: int


def merge(base: Path, adapter: Path | None) -> Merged:
    """Return the base with what was trained on it.

    Merged in fp32 and from the unquantised base: W + (alpha / r) · B·A loses digits in bf16, and merging into 4-bit
    weights loses more. The engine then rounds once, to the precision it serves.
    """
    if adapter is None:
        return Merged(_load(base), base, {}, 0)
    tokenizer_directory = adapter if (adapter / "tokenizer.json").is_file() else base
    if (adapter / "config.json").is_file():
        return Merged(_load(adapter), tokenizer_directory, {}, 0)
    model = _load(base)
    _make_room_for_new_tokens(model, tokenizer_directory)
    virtual = adapter / "virtual_tokens"
    with hidden_modules("bitsandbytes"):  # peft imports it if it finds it, 2 s here, for a quantised model
        if _kind(adapter) in _VIRTUAL_KINDS:
            virtual = adapter
        else:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        prefix = keys_and_values(model, virtual) if virtual.is_dir() else {}
    tokens = prefix["key.0"].shape[2] if prefix else 0
    return Merged(model, tokenizer_directory, prefix, tokens)


def keys_and_values(model: Any, virtual: Path) -> "dict[str, torch.Tensor]":
    """Return the keys and values of virtual tokens in every layer.

    Those of prefix tuning were trained; those of prompt tuning and P-tuning come of a pass through the model, and are
    the same for every prompt, since the virtual tokens stand before it and look at nothing but themselves.
    """
    import torch
    from peft import PeftModel

    with torch.inference_mode():
        prompt = PeftModel.from_pretrained(model, virtual).get_prompt(1)
        if isinstance(prompt, torch.Tensor):
            embeddings = prompt.to(model.get_input_embeddings().weight.dtype)
            prompt = model(inputs_embeds=embeddings, use_cache=True).past_key_values
    tensors: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(prompt.layers):
        tensors |= {f"key.{number}": layer.keys.contiguous(), f"value.{number}": layer.values.contiguous()}
    return tensors


def load_trained(base: Path, adapter: Path, precision: str) -> Any:
    """Return the model as it was trained: what was trained stands beside the base and is not merged into it.

    Of an adapter of layers and virtual tokens, the layers are merged, as peft puts no two adapters on a base. The base
    of QLoRA is in 16 bits here.

    Args:
        base: the base model.
        adapter: what was trained.
        precision: what the training said that it computed in, as torch names it: "bfloat16", "float16" or "float32".
    """
    if (adapter / "config.json").is_file():
        return _load(adapter, precision).eval()
    model = _load(base, precision)
    _make_room_for_new_tokens(model, adapter if (adapter / "tokenizer.json").is_file() else base)
    with hidden_modules("bitsandbytes"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
        if (adapter / "virtual_tokens").is_dir():
            model = PeftModel.from_pretrained(model.merge_and_unload(), adapter / "virtual_tokens")
    return model.eval()


def _load(directory: Path, precision: str = "float32") -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, precision)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, trust_remote_code=False, use_safetensors=True)


def _make_room_for_new_tokens(model: Any, tokenizer_directory: Path) -> None:
    """Add the rows that new tokens have; the adapter has their values."""
    from transformers import AutoTokenizer

    tokens = len(AutoTokenizer.from_pretrained(tokenizer_directory, trust_remote_code=False))
    if tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(tokens, mean_resizing=False)


def _kind(adapter: Path) -> str:
    return str(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"])
