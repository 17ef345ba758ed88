"""The training process: reads a spec, takes the optimizer steps, saves the adapter, says each step as an event."""

import itertools
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.config import TrainingSection
from tasks.contracts.engine import load_chat_template
from tasks.contracts.errors import TrainingError
from tasks.contracts.hidden_modules import hidden_modules
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.worker import say, worker_main
from tasks.training.device import choose_device
from tasks.training.examples import Example, batches_by_length, encode_row
from tasks.training.schedule import learning_rate_at

if TYPE_CHECKING:
    import torch


EAGER_ATTENTION_BYTES = 1_500_000_000
"""On a CPU, eager attention trains short rows faster than the fused kernel, whose backward pass is slow there; it keeps
all scores, so longer rows go through the kernel (DECISIONS.md)."""


def run(spec: dict[str, Any]) -> None:
    """Run the training that a spec describes."""
    train(
        base=Path(spec["base"]),
        rows=Path(spec["rows"]),
        out=Path(spec["out"]),
        training=TrainingSection.model_validate(spec["training"]),
        system_prompt=spec["system_prompt"],
        base_name=spec["base_name"],
    )


def train(base: Path, rows: Path, out: Path, training: TrainingSection, system_prompt: str, base_name: str) -> None:
    """Train a LoRA adapter on `rows` and save it under `out`.

    Raises:
        TrainingError: no row fits, or the loss is not a number.
    """
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(training.seed)
    device, dtype = choose_device(training)
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    examples, too_long = encode_rows(rows, tokenizer, system_prompt, training.max_length_tokens)
    if not examples:
        raise TrainingError(
            f"training.max_length_tokens is {training.max_length_tokens}, and none of the {too_long} rows fits"
        )
    model = load_with_adapter(base, training, device, dtype)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    schedule = plan_steps(examples, training)
    say(
        "start",
        total_steps=len(schedule),
        rows=len(examples),
        rows_too_long=too_long,
        device=str(device),
        precision=str(dtype).removeprefix("torch."),
        trainable_parameters=trainable,
        tokens=sum(len(example) for example in examples),
    )
    run_steps(model, examples, schedule, training, device)
    adapter_config = model.peft_config["default"]
    adapter_config.base_model_name_or_path = base_name
    adapter_config.target_modules = sorted(adapter_config.target_modules)  # a set: its order differs between processes
    # "auto" would look the base up on the hub to see whether its embeddings were resized; they never are here.
    model.save_pretrained(out, save_embedding_layers=False)
    say("end")


def encode_rows(path: Path, tokenizer: Any, system_prompt: str, max_length_tokens: int) -> tuple[list[Example], int]:
    """Encode the training rows; return those that fit and how many do not."""
    from datasets import Dataset, disable_caching

    disable_caching()
    rows = Dataset.from_list([{"messages": row["messages"]} for row in read_jsonl(path)])

    template = load_chat_template(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        example = encode_row(row, tokenizer, template, system_prompt)
        return {"prompt_ids": list(example.prompt_ids), "answer_ids": list(example.answer_ids)}

    encoded = rows.map(encode, remove_columns=["messages"])
    examples = [Example(tuple(row["prompt_ids"]), tuple(row["answer_ids"])) for row in encoded]
    fitting = [example for example in examples if len(example) <= max_length_tokens]
    return fitting, len(examples) - len(fitting)


def load_with_adapter(base: Path, training: TrainingSection, device: "torch.device", dtype: "torch.dtype") -> Any:
    """Load the base model, in 4 bits if asked for, and put a fresh LoRA adapter on all its linear layers."""
    from transformers import AutoModelForCausalLM

    quantization = _nf4(dtype) if training.quantization == "nf4" else {}
    if quantization and device.type == "cuda":
        quantization["device_map"] = {"": str(device)}  # 4-bit weights are packed on the device they are loaded to
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, trust_remote_code=False, use_safetensors=True, **quantization
    )
    if not quantization:
        model.to(device)
    else:
        _keep_nf4_unpacked(model)
    model.config.use_cache = False
    # peft imports bitsandbytes if it finds it, 2 s here, which only a quantised model needs.
    with hidden_modules(*(() if quantization else ("bitsandbytes",))):
        return _with_adapter(model, training)


def _with_adapter(model: Any, training: TrainingSection) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    lora = LoraConfig(
        r=training.rank,
        lora_alpha=training.alpha,
        lora_dropout=training.dropout,
        target_modules="all-linear",
        task_type=TaskType.CAUSAL_LM,
    )
    # Without autocast, adapters in the base's dtype avoid two casts a layer; the optimizer keeps fp32 masters.
    return get_peft_model(model, lora, autocast_adapter_dtype=False)


def _nf4(dtype: "torch.dtype") -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def _keep_nf4_unpacked(model: Any) -> None:
    """Stop bitsandbytes 0.50 from repacking weights in place on AVX512-BF16 CPUs, which scrambles later training.

    Can go when a forward pass in eval mode leaves `Linear4bit.weight` as it was.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def plan_steps(examples: list[Example], training: TrainingSection) -> list[list[int]]:
    """Return the rows of every optimizer step: length-sorted batches, shuffled anew each epoch."""
    batches = batches_by_length([len(example) for example in examples], training.batch_rows)
    total = max(1, round(len(batches) * training.epochs))
    shuffler = random.Random(training.seed)  # noqa: S311 - an order, not a secret
    epochs = (shuffler.sample(batches, len(batches)) for _ in itertools.count())
    return list(itertools.islice(itertools.chain.from_iterable(epochs), total))


def run_steps(
    model: Any, examples: list[Example], schedule: list[list[int]], training: TrainingSection, device: "torch.device"
) -> None:
    """Take the optimizer steps: bf16 (or fp32) weights, fp32 masters of the adapter in AdamW."""
    import torch

    fused_attention = model.config._attn_implementation
    weights = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone() for p in weights]
    optimizer = torch.optim.AdamW(masters, lr=training.learning_rate, weight_decay=training.weight_decay)
    model.train()
    tokens, started = 0, time.monotonic()
    for step, rows in enumerate(schedule):
        batch = [examples[row] for row in rows]
        fits = device.type == "cpu" and attention_bytes(model.config, batch) <= EAGER_ATTENTION_BYTES
        model.get_base_model().set_attn_implementation("eager" if fits else fused_attention)
        loss = batch_loss(model, batch, device)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss at step {step + 1} is {loss.item()}; lower training.learning_rate")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(weights, training.max_gradient_norm)
        rate = learning_rate_at(step, len(schedule), training.learning_rate, training.warmup_share)
        _apply(optimizer, weights, masters, rate)
        tokens += sum(len(example) for example in batch)
        elapsed = time.monotonic() - started
        say(
            "step",
            step=step + 1,
            total_steps=len(schedule),
            loss=loss.item(),
            gradient_norm=norm.item(),
            learning_rate=rate,
            tokens=tokens,
            tokens_per_second=tokens / elapsed,
            seconds=elapsed,
        )


def attention_bytes(config: Any, batch: list[Example]) -> int:
    """Return what eager attention keeps of a batch for the backward pass.

    Rows × heads × T² scores a layer, each as bf16 score, fp32 softmax and bf16 weight: 8 bytes.
    """
    longest = max(len(example) for example in batch)
    return len(batch) * int(config.num_attention_heads) * longest**2 * int(config.num_hidden_layers) * 8


def _apply(
    optimizer: "torch.optim.Optimizer", weights: "list[torch.Tensor]", masters: "list[torch.Tensor]", rate: float
) -> None:
    """Step on the fp32 masters and copy them back: in bf16 alone, late small updates would round to nothing."""
    import torch

    for weight, master in zip(weights, masters, strict=True):
        master.grad = None if weight.grad is None else weight.grad.float()
        weight.grad = None
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()
    with torch.no_grad():
        for weight, master in zip(weights, masters, strict=True):
            weight.copy_(master)


def batch_loss(model: Any, batch: list[Example], device: "torch.device") -> "torch.Tensor":
    """Return the mean cross-entropy of the answer tokens of a batch, in nats.

    Logits are computed only where there is a target: with a vocabulary of 49,152 they would be most of the memory
    and a large share of the time. (B, T) token ids → (N, V) logits for the N answer tokens.
    """
    import torch

    longest = max(len(example) for example in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    attended = torch.zeros_like(ids)
    targets = torch.full_like(ids, -100)
    for row, example in enumerate(batch):
        end, start = len(example), len(example.prompt_ids)
        ids[row, :end] = torch.tensor(example.prompt_ids + example.answer_ids)
        attended[row, :end] = 1
        targets[row, start:end] = torch.tensor(example.answer_ids)
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, :-1] = targets[:, 1:] != -100
    # The model's own forward pass, because some families scale or cap what comes out of the head.
    logits = model.get_base_model()(
        input_ids=ids.to(device), attention_mask=attended.to(device), logits_to_keep=wanted.to(device)
    ).logits
    return torch.nn.functional.cross_entropy(logits.float(), targets[:, 1:][wanted[:, :-1]].to(device))


if __name__ == "__main__":
    worker_main(run)
