"""Base models: a directory, a hub id with its commit, or a GGUF in a wheel, kept as safetensors by digest."""

import functools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import BaseModelRef
from tasks.contracts.config import BaseModelSection
from tasks.contracts.errors import BaseModelError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of, digest_of_file
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import run_worker
from tasks.training.base_weights import check_weights
from tasks.training.chat_template import (
    check_chat_template,
    check_system_prompt,
    keep_chat_template,
    read_chat_template,
)
from tasks.training.gguf_wheel import find_gguf

log = logging.getLogger("llm_retrain.training")

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_WANTED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
)
_CODE = ("base_model", "base_weights", "chat_template", "conversion_process", "gguf_wheel")


def prepare_base_model(base_model: BaseModelSection, home: Home, store: Store, system_prompt: str = "") -> BaseModelRef:
    """Bring the base model into the store as safetensors with its tokenizer, once.

    `system_prompt` is what its chat template has to be able to spell: serving.system_prompt.

    Raises:
        BaseModelError: it is missing or not pinned, would need remote code, or lacks what training or serving need:
            all weights as safetensors, tokenizer.json, a chat template, an end token, a context length.
    """
    kind, _, rest = base_model.source.partition(":")
    given = read_chat_template(base_model.chat_template)
    inputs: dict[str, Any] = {
        "code": code_digest(*(f"tasks/training/{name}.py" for name in _CODE)),
        "chat_template": given,
    }
    fill: Callable[[Path], None]
    if kind == "dir":
        directory, fingerprint = _read_directory(rest, base_model.source)
        inputs |= {"files": fingerprint}
        fill = functools.partial(_copy_model, directory)
    elif kind == "hub":
        name, commit = _hub_commit(rest)
        inputs |= {"hub": rest}
        fill = functools.partial(_fetch_from_hub, name, commit)
    else:
        gguf = find_gguf(rest, home)
        inputs |= {"gguf": digest_of_file(gguf), "libraries": library_versions("transformers", "gguf", "tokenizers")}
        fill = functools.partial(_convert_gguf, gguf, home.logs / "conversion.log")

    def write(out: Path) -> dict[str, Any]:
        fill(out)
        if given:
            keep_chat_template(given, out)
        return {"source": base_model.source, **_checked_facts(out, base_model)}

    entry = store.produce("base", inputs, write)
    check_system_prompt(entry.facts["chat_template"], system_prompt, base_model)
    return BaseModelRef(path=entry.path, digest=entry.digest, source=base_model.source)


def prepare_teacher(
    training: TrainingSection, base_model: BaseModelSection, home: Home, store: Store
) -> BaseModelRef | None:
    """Bring the model that a distillation learns from into the store, as a base model; None if there is none.

    Conversations are spelled by the base model's template; a teacher needs one only as every model in the store does,
    so it may be the one that is given to the base.

    Raises:
        BaseModelError: as for a base model, with the key training.teacher.
    """
    if not training.teacher:
        return None
    section = BaseModelSection(source=training.teacher, chat_template=base_model.chat_template)
    try:
        return prepare_base_model(section, home, store)
    except BaseModelError as error:
        raise BaseModelError(str(error).replace("base_model.source is", "training.teacher is", 1)) from error


def _convert_gguf(gguf: Path, log_path: Path, out: Path) -> None:
    log.info("Converting %s to safetensors, once", gguf.name)
    run_worker("tasks.training.conversion_process", {"gguf": str(gguf), "out": str(out)}, log_path, BaseModelError)


def _copy_model(directory: Path, out: Path) -> None:
    for path in _wanted_files(directory):
        shutil.copyfile(path, out / path.name)


def _hub_commit(rest: str) -> tuple[str, str]:
    """Split NAME@COMMIT; only a commit, because a branch or tag can move and the store would keep the old model."""
    match = _HUB.fullmatch(rest)
    if match is None:
        raise BaseModelError(
            f"base_model.source is 'hub:{rest}'; expected hub:ORG/NAME@COMMIT with the 40 hexadecimal digits of a "
            "commit, because a branch or tag can move"
        )
    return match["name"], match["commit"]


def _fetch_from_hub(name: str, commit: str, out: Path) -> None:
    from huggingface_hub import snapshot_download

    source = f"hub:{name}@{commit}"
    try:
        snapshot = snapshot_download(name, revision=commit, allow_patterns=list(_WANTED))
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean "not fetched"
        raise BaseModelError(f"base_model.source is {source!r}, which could not be fetched: {error}") from error
    _copy_model(Path(snapshot), out)


def _read_directory(text: str, source: str) -> tuple[Path, str]:
    """Return a model's directory and the digest of its files."""
    try:
        directory = Path(text).expanduser()
        if not directory.is_dir():
            raise BaseModelError(f"base_model.source is {source!r}, which is not a directory")
        return directory, digest_of({path.name: digest_of_file(path) for path in _wanted_files(directory)})
    except OSError as error:
        raise BaseModelError(
            f"base_model.source is {source!r}, of which {error.filename or 'a file'} cannot be read "
            f"({os.strerror(error.errno or 0)})"
        ) from error
    except RuntimeError as error:  # what expanduser raises
        raise BaseModelError(f"base_model.source is {source!r}, whose home directory is not known") from error


def _wanted_files(directory: Path) -> list[Path]:
    return sorted({path for pattern in _WANTED for path in directory.glob(pattern) if path.is_file()})


def _checked_facts(out: Path, base_model: BaseModelSection) -> dict[str, Any]:
    """Refuse what cannot go through the line, before anything is trained on it."""
    source = base_model.source
    if not any(out.glob("*.safetensors")):
        raise BaseModelError(
            f"base_model.source is {source!r}, which has no *.safetensors; other formats are not loaded"
        )
    # Asked of the files and not of transformers, which fails on remote code with words of its own.
    for name in ("config.json", "tokenizer_config.json"):
        if _read_json_object(out / name, source).get("auto_map"):
            raise BaseModelError(f"base_model.source is {source!r}, which asks for remote code (auto_map in {name})")
    if not (out / "tokenizer.json").is_file():
        raise BaseModelError(
            f"base_model.source is {source!r}, which has no tokenizer.json; a slow tokenizer cannot be served"
        )
    config = _load(out, source, "AutoConfig")
    tokenizer = _load(out, source, "AutoTokenizer")
    _check_config(config, source)
    if tokenizer.eos_token is None:
        raise BaseModelError(
            f"base_model.source is {source!r}, whose tokenizer has no eos_token: answers would never end"
        )
    check_chat_template(tokenizer, base_model)
    check_weights(out, config, source)
    return {
        "architecture": (config.architectures or ["unknown"])[0],
        "vocabulary": config.vocab_size,
        "chat_template": {
            "source": tokenizer.chat_template,
            "bos_token": tokenizer.bos_token or "",
            "eos_token": tokenizer.eos_token,
        },
    }


def _check_config(config: Any, source: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BaseModelError(
            f"base_model.source is {source!r}, whose model_type {config.model_type!r} is no causal language model"
        )
    for key in ("max_position_embeddings", "vocab_size"):
        value = getattr(config, key, None)
        if not isinstance(value, int) or value < 1:
            raise BaseModelError(
                f"base_model.source is {source!r}, whose config.json has {key} {value!r}; expected a positive number"
            )


def _read_json_object(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaseModelError(f"base_model.source is {source!r}, which has no {path.name}") from error
    except ValueError as error:
        raise BaseModelError(f"base_model.source is {source!r}, whose {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"base_model.source is {source!r}, whose {path.name} is not a JSON object")
    return content


def _load(out: Path, source: str, loader: str) -> Any:
    """Load with one of transformers' Auto classes; no code of the model's own is run."""
    import transformers

    try:
        return getattr(transformers, loader).from_pretrained(out, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise a dozen unrelated types; all mean "not loadable"
        said = " ".join(str(error).split())[:300]
        raise BaseModelError(
            f"base_model.source is {source!r}, which transformers' {loader} cannot load: {said}"
        ) from error
