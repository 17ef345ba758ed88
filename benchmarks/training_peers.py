"""The peers of benchmarks/training.py, as their documentation has them; runs in their environment.

    python benchmarks/training_peers.py trainer|trl ORDER OUT

What is set is what all contestants share: rows, rank, steps of 8 rows, learning rate, schedule, seed, and that it is a
CPU. Everything else is left as it comes: precision, checkpointing of activations, padding, order of the rows.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(name: str, order_path: Path, out: str) -> None:
    """Train, save, and say the seconds that the trainer itself counted."""
    order = json.loads(order_path.read_text(encoding="utf-8"))
    trainer = {"trainer": transformers_trainer, "trl": trl_trainer}[name](order, out)
    metrics = trainer.train().metrics
    trainer.save_model(out)
    print(json.dumps({"seconds": metrics["train_runtime"], "adapter": out}))


def shared_arguments(order: dict[str, Any], out: str) -> dict[str, Any]:
    """Return what both trainers' arguments are given."""
    training = order["training"]
    steps = -(-len(order["train"]) // training["batch_rows"])
    return {
        "output_dir": out,
        "use_cpu": True,
        "per_device_train_batch_size": training["batch_rows"],
        "num_train_epochs": training["epochs"],
        "learning_rate": training["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(steps * training["warmup_share"]),
        "max_grad_norm": training["max_gradient_norm"],
        "weight_decay": training["weight_decay"],
        "seed": training["seed"],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def lora(order: dict[str, Any]) -> Any:
    """Return peft's configuration of the adapter."""
    from peft import LoraConfig

    training = order["training"]
    return LoraConfig(
        r=training["rank"],
        lora_alpha=training["alpha"],
        lora_dropout=training["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def transformers_trainer(order: dict[str, Any], out: str) -> Any:
    """Return transformers' Trainer over a peft model; prompts are masked, as for the others."""
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(order["base"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(order["base"]), lora(order))
    rows = [
        {
            "input_ids": prompt + answer,
            "attention_mask": [1] * len(prompt + answer),
            "labels": [-100] * len(prompt) + answer,
        }
        for prompt, answer in order["train"]
    ]
    return Trainer(
        model=model,
        args=TrainingArguments(**shared_arguments(order, out)),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


def trl_trainer(order: dict[str, Any], out: str) -> Any:
    """Return TRL's SFTTrainer over conversations divided into prompt and completion."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in order["messages"]]
    return SFTTrainer(
        model=order["base"],
        args=SFTConfig(**shared_arguments(order, out)),
        train_dataset=Dataset.from_list(rows),
        peft_config=lora(order),
    )


if __name__ == "__main__":
    main(*(convert(value) for convert, value in zip((str, Path, str), sys.argv[1:], strict=True)))
