"""The build process: merges the adapter in fp32, converts it for the engine, and lays out the Triton directory."""

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.contracts.config import ServingSection
from tasks.contracts.engine import TEMPLATE_DATE
from tasks.contracts.hidden_modules import hidden_modules
from tasks.contracts.worker import worker_main


def run(spec: dict[str, Any]) -> None:
    """Build the directory that a spec describes."""
    from tasks.serving.model_config import engine_config
    from tasks.serving.repository import copy_engine

    serving = ServingSection.model_validate(spec["serving"])
    directory = Path(spec["model_directory"])
    version = directory / "1"
    version.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="llm-retrain-merged-", dir=directory.parent) as merged:
        facts = save_merged(Path(spec["base"]), spec["adapter"], Path(merged), serving)
        if serving.engine == "onnx":
            convert_to_onnx(Path(merged), version / "genai", serving.onnx_precision)
        else:
            keep_for_transformers(Path(merged), version / "hf")
    (version / "tokenizer.json").write_bytes((Path(spec["base"]) / "tokenizer.json").read_bytes())
    (version / "servable.json").write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
    copy_engine(serving.engine, version)
    (directory / "config.pbtxt").write_text(engine_config(), encoding="utf-8")


def save_merged(base: Path, adapter: str | None, out: Path, serving: ServingSection) -> dict[str, Any]:
    """Save base plus adapter as plain weights; return what the engine must know beside them.

    Merged in fp32 and from the unquantised base: W + (alpha / r) · B·A loses digits in bf16, and merging into 4-bit
    weights loses more. The engine then rounds once, to the precision it serves.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    if adapter is not None:
        with hidden_modules("bitsandbytes"):  # peft imports it if it finds it, 2 s here, for a quantised model
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if serving.engine == "transformers":
        model.to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    tokenizer.save_pretrained(out)
    stops = model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    return {
        "engine": serving.engine,
        "chat_template": tokenizer.chat_template,
        "template_date": TEMPLATE_DATE,
        "system_prompt": serving.system_prompt,
        "bos_token": tokenizer.bos_token or "",
        "eos_token": tokenizer.eos_token,
        "stop_token_ids": sorted({tokenizer.eos_token_id, *(stop for stop in stops if stop is not None)}),
        "max_new_tokens": serving.max_new_tokens,
        "context_tokens": model.config.max_position_embeddings,
    }


def convert_to_onnx(merged: Path, out: Path, precision: str) -> None:
    """Convert to an ONNX Runtime GenAI model, through the builder's command line and in this process.

    In this process, because starting another one that imports torch again costs as much as the conversion.
    """
    with tempfile.TemporaryDirectory(prefix="llm-retrain-builder-") as cache:
        arguments = ["builder", "-i", str(merged), "-o", str(out), "-p", precision, "-e", "cpu", "-c", cache]
        # Prefill needs the logits of the last token only; with 49,152 words the head was a fifth of its work.
        arguments += ["--extra_options", "prune_lm_head=true"]
        before, sys.argv = sys.argv, arguments
        try:
            runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
        finally:
            sys.argv = before
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        (out / name).unlink(missing_ok=True)  # the engine reads the one beside it, which training used too


def keep_for_transformers(merged: Path, out: Path) -> None:
    """Keep configuration and safetensors of the merged model for the transformers engine."""
    out.mkdir()
    for path in sorted(merged.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "generation_config.json"):
            path.rename(out / path.name)


if __name__ == "__main__":
    worker_main(run)
