"""Serving engines side by side: the quickstart's candidate on held-out rows, against plain transformers generate.

Run after `make quickstart`, whose store it reuses: `make bench-engines`. Prints answers a second, the ratio to what a
user would write first (transformers, one prompt at a time), the size on disk and ROUGE-L on the same rows.
"""

import argparse
import time
from pathlib import Path

from tasks.contracts.config import ServingSection, load_config
from tasks.contracts.engine import load_engine
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest
from tasks.evaluation.metrics.rouge import Rouge
from tasks.serving.build import build_servable
from tasks.training.adapter import TrainingJob, train_adapter
from tasks.training.base_model import prepare_base_model

ENGINES = {
    "onnx int8": {"engine": "onnx", "onnx_precision": "int8"},
    "onnx int4": {"engine": "onnx", "onnx_precision": "int4"},
    "onnx fp32": {"engine": "onnx", "onnx_precision": "fp32"},
    "transformers bf16": {"engine": "transformers"},
}


def main() -> None:
    """Build what is missing, ask every engine the same rows, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=24, help="held-out rows to answer")
    rows_wanted = parser.parse_args().rows
    home, config = Home.from_environment(), load_config("quickstart")
    store, log_path = Store(home.store), home.logs / "benchmark.log"
    base = prepare_base_model(config.base_model, home, store)
    data, place = config.data, Place(home, store, config.serving)
    dataset = build_dataset(ingest(data, place, data.sources), None, data, place, base)
    adapter = train_adapter(TrainingJob(base, dataset, config.training), store, log_path)
    rows = list(read_jsonl(dataset.path / "eval.jsonl"))[:rows_wanted]
    references = [row["messages"][-1]["content"] for row in rows]
    prompts = [row["messages"][:-1] for row in rows]

    results = {"transformers generate, fp32": ask_transformers(base.path, adapter.path / "adapter", prompts)}
    for name, changes in ENGINES.items():
        serving = ServingSection.model_validate(config.serving.model_dump() | changes)
        servable = build_servable(base, adapter, serving, store, log_path)
        size = sum(path.stat().st_size for path in servable.model_directory.rglob("*") if path.is_file())
        results[name] = (*ask_engine(servable.model_directory / "1", prompts), size)

    first = next(iter(results.values()))[1]
    print(f"{len(rows)} held-out rows, one prompt at a time, greedy\n")
    print(f"{'engine':<30}{'answers/s':>10}{'ratio':>8}{'MB':>7}{'ROUGE-L':>9}")
    for name, (answers, seconds, size) in results.items():
        rouge = Rouge().compute(predictions=answers, references=references)["rougeL"]
        print(f"{name:<30}{len(rows) / seconds:>10.2f}{first / seconds:>8.2f}{size / 1e6:>7.0f}{rouge:>9.3f}")


def ask_engine(version_directory: Path, prompts: list[list[dict[str, str]]]) -> tuple[list[str], float]:
    """Return an engine's answers and the seconds they took, after one prompt to warm up."""
    engine = load_engine(version_directory)
    engine.generate(prompts[0])
    started = time.perf_counter()
    answers = [engine.generate(prompt).text for prompt in prompts]
    return answers, time.perf_counter() - started


def ask_transformers(base: Path, adapter: Path, prompts: list[list[dict[str, str]]]) -> tuple[list[str], float, int]:
    """Do what a user would write first: peft on the base model, `generate`, one prompt at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()

    def answer(prompt: list[dict[str, str]]) -> str:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=48, do_sample=False)
        return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    answer(prompts[0])
    started = time.perf_counter()
    answers = [answer(prompt) for prompt in prompts]
    return answers, time.perf_counter() - started, sum(path.stat().st_size for path in base.glob("*.safetensors"))


if __name__ == "__main__":
    main()
