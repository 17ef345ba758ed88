"""Triton model directories of tiny models, built in this process."""

import json
import shutil

from tiny_model import CHAT_TEMPLATE, CONTEXT_TOKENS

from tasks.serving.build_process import convert_to_onnx
from tasks.serving.model_config import engine_config
from tasks.serving.repository import copy_engine


def build_onnx(model, directory, precision):
    """Convert a Hugging Face directory into a Triton model directory."""
    version = directory / "1"
    copy_engine("onnx", version)
    convert_to_onnx(model, version / "genai", precision)
    return complete_servable(model, directory, "onnx")


def complete_servable(model, directory, engine):
    """Write what stands beside the weights."""
    settings = json.loads((model / "config.json").read_text())
    content = {
        "engine": engine,
        "chat_template": CHAT_TEMPLATE,
        "template_date": "2025-01-01",
        "system_prompt": "",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "stop_token_ids": [settings["eos_token_id"]],
        "max_new_tokens": 12,
        "context_tokens": CONTEXT_TOKENS,
    }
    shutil.copyfile(model / "tokenizer.json", directory / "1" / "tokenizer.json")
    (directory / "1" / "servable.json").write_text(json.dumps(content))
    (directory / "config.pbtxt").write_text(engine_config())
    return directory
