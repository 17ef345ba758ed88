"""Builds the form that serves: base model and adapter become a complete Triton model directory.

What is built here is what gets evaluated, and byte for byte what enters the model repository.
"""

import logging
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.engine import TEMPLATE_DATE
from tasks.contracts.errors import BuildError
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.contracts.worker import run_worker

log = logging.getLogger("llm_retrain.serving")

_CONVERTERS = {"onnx": ("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir"), "transformers": ("safetensors",)}
_MEMORY_HINT = "merging needs the base model in fp32: free memory or choose a smaller base_model.source"


def build_servable(
    base: BaseModelRef, adapter: AdapterRef | None, serving: ServingSection, store: Store, log_path: Path
) -> ServableModel:
    """Return the servable model of `base` with `adapter` (or of the base alone), building it only if it is new.

    Raises:
        BuildError: the weights could not be merged or converted; says what the build process said last.
    """
    inputs = {
        "base": base.digest,
        "adapter": adapter.digest if adapter else None,
        "engine": serving.engine,
        "onnx_precision": serving.onnx_precision if serving.engine == "onnx" else None,
        "system_prompt": serving.system_prompt,
        "max_new_tokens": serving.max_new_tokens,
        "code": code_digest(
            f"triton_models/{serving.engine}",
            *(f"triton_models/{name}.py" for name in ("engine_model", "prompt", "request", "tensors")),
            "tasks/serving/build.py",
            "tasks/serving/build_process.py",
            "tasks/serving/merging.py",
            "tasks/serving/model_config.py",
            "tasks/serving/repository.py",  # copy_engine
        ),
        "template_date": TEMPLATE_DATE,
        "libraries": library_versions("torch", "transformers", "tokenizers", "peft", *_CONVERTERS[serving.engine]),
    }

    def write(out: Path) -> dict[str, Any]:
        spec = {
            "base": str(base.path),
            "adapter": str(adapter.path / "adapter") if adapter else None,
            "model_directory": str(out / "model"),
            "serving": serving.model_dump(mode="json"),
        }
        run_worker("tasks.serving.build_process", spec, log_path, BuildError, memory_hint=_MEMORY_HINT)
        size = sum(path.stat().st_size for path in (out / "model").rglob("*") if path.is_file())
        log.info(
            "Built %s for the %s engine, %.0f MB", "candidate" if adapter else "base model", serving.engine, size / 1e6
        )
        return {"engine": serving.engine, "bytes": size}

    entry = store.produce("servable", inputs, write)
    return ServableModel(path=entry.path, digest=entry.digest, engine=serving.engine)
