"""The build process: merges the adapter, converts it for the engine, and lays out the Triton directory."""

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.contracts.config import ServingSection
from tasks.contracts.engine import TEMPLATE_DATE
from tasks.contracts.errors import BuildError
from tasks.contracts.vector_math import settle_vector_math
from tasks.contracts.worker import worker_main
from tasks.serving.merging import Merged, merge

PREFIX = "prefix.safetensors"


def run(spec: dict[str, Any]) -> None:
    """Build the directory that a spec describes."""
    from tasks.serving.model_config import engine_config
    from tasks.serving.repository import copy_engine

    settle_vector_math()
    serving = ServingSection.model_validate(spec["serving"])
    directory = Path(spec["model_directory"])
    version = directory / "1"
    version.mkdir(parents=True)
    adapter = Path(spec["adapter"]) if spec["adapter"] else None
    merged = merge(Path(spec["base"]), adapter)
    with tempfile.TemporaryDirectory(prefix="llm-retrain-merged-", dir=directory.parent) as folder:
        facts = save_merged(merged, Path(folder), serving)
        if serving.engine == "onnx":
            convert_to_onnx(Path(folder), version / "genai", serving.onnx_precision)
        else:
            keep_for_transformers(Path(folder), version / "hf")
    (version / "tokenizer.json").write_bytes((merged.tokenizer_directory / "tokenizer.json").read_bytes())
    (version / "servable.json").write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
    copy_engine(serving.engine, version)
    (directory / "config.pbtxt").write_text(engine_config(), encoding="utf-8")


def save_merged(merged: Merged, out: Path, serving: ServingSection) -> dict[str, Any]:
    """Save plain weights, and keys and values of virtual tokens; return what the engine must know beside them.

    Raises:
        BuildError: there are virtual tokens, and the engine cannot serve them.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    model = merged.model
    if merged.prefix and serving.engine != "transformers":
        raise BuildError(
            f"serving.engine is {serving.engine!r}, which takes no keys and values from outside its graph, and the "
            "adapter has virtual tokens; expected transformers"
        )
    if serving.engine == "transformers":
        model.to(torch.bfloat16)
    model.save_pretrained(out)
    if merged.prefix:
        save_file({name: tensor.to(model.dtype) for name, tensor in merged.prefix.items()}, out / PREFIX)
    tokenizer = AutoTokenizer.from_pretrained(merged.tokenizer_directory, trust_remote_code=False)
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
        "context_tokens": model.config.max_position_embeddings - merged.prefix_tokens,
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
    """Keep configuration and safetensors of the merged model for the transformers engine.

    A large model is in several files; then the index says which weight is in which.
    """
    out.mkdir()
    configurations = ("config.json", "generation_config.json")
    for path in sorted(merged.iterdir()):
        if path.name in configurations or path.name.endswith((".safetensors", ".safetensors.index.json")):
            path.rename(out / path.name)


if __name__ == "__main__":
    worker_main(run)
