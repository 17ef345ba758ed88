"""Whether a base model's files hold every weight of it: what is missing, transformers fills with random numbers.

Such a model trains and serves without an error, and each process that loads it draws other numbers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import BaseModelError

if TYPE_CHECKING:
    import torch

_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def check_weights(model: Path, config: Any, source: str) -> None:
    """Refuse files that lack weights, or have others than the configuration says.

    transformers itself loads the files' names and shapes, without their contents: it alone knows which weights are
    tied, and under which names older files have them. A model that was quantised before is left to its own loader.

    Raises:
        BaseModelError: names the file or a weight.
    """
    if getattr(config, "quantization_config", None):
        return
    import torch
    from transformers import AutoModelForCausalLM

    shapes = _weights_without_contents(model, source)
    with _quiet():
        try:
            with torch.device("meta"):
                empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            _, found = type(empty).from_pretrained(
                None, config=empty.config, state_dict=shapes, device_map={"": "meta"}, output_loading_info=True
            )
        except Exception as error:  # transformers and torch raise unrelated types; all mean "not loadable"
            said = " ".join(str(error).split())[:300]
            raise BaseModelError(
                f"base_model.source is {source!r}, which transformers' AutoModelForCausalLM cannot load: {said}"
            ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise BaseModelError(
            f"base_model.source is {source!r}, whose files lack {len(missing)} weights of {type(empty).__name__}, such "
            f"as {missing[0]}; expected all of them, as what is missing would be random numbers"
        )


def _weights_without_contents(model: Path, source: str) -> "dict[str, torch.Tensor]":
    import torch
    from safetensors import SafetensorError, safe_open

    shapes = {}
    for name in _weight_files(model, source):
        try:
            with safe_open(model / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dictionary
                    shapes[key] = torch.empty(file.get_slice(key).get_shape(), device="meta")
        except (FileNotFoundError, SafetensorError) as error:
            raise BaseModelError(
                f"base_model.source is {source!r}, whose {name} is missing or no whole safetensors file: {error}"
            ) from error
    return shapes


def _weight_files(model: Path, source: str) -> list[str]:
    """Return the files that transformers reads, of several kinds that may lie beside each other."""
    if (model / _FILE).is_file():
        return [_FILE]
    if (model / _INDEX).is_file():
        try:
            names = set(json.loads((model / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            if not all(isinstance(name, str) and name and name == Path(name).name for name in names):
                raise ValueError("a weight's file is no name of a file beside it")
            return sorted(names)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BaseModelError(
                f"base_model.source is {source!r}, whose {_INDEX} is no index of weights: expected JSON with a "
                "weight_map"
            ) from error
    return sorted(path.name for path in model.glob("*.safetensors"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting what is said here in one sentence, and from drawing a bar."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
