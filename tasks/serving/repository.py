"""The Triton model repository: a model directory in it is complete, or it is absent."""

import errno
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.contracts.errors import ServingError, StoreError
from tasks.contracts.home import PROJECT_ROOT, Home, checked_name
from tasks.contracts.locks import held_lock
from tasks.contracts.store import MANIFEST, damage_of, read_manifest, write_manifest
from tasks.serving.model_config import router_config
from tasks.serving.routing import sync_directory

log = logging.getLogger("llm_retrain.serving")

ENGINES = ("onnx", "transformers")
TRITON_MODELS = PROJECT_ROOT / "triton_models"
_ROUTER_SHARES = ("request.py", "tensors.py")
_EVALUATED = re.compile(r"_evaluated-[0-9a-f]{32}")
_COPY_PREFIX = ".copy-"
_LOCK = ".lock"


def copy_engine(engine: str, version_directory: Path) -> None:
    """Put the code of an engine into a Triton version directory (".../1"): model.py and what it imports.

    Args:
        engine: "onnx" or "transformers".
        version_directory: is created; the caller adds servable.json, tokenizer.json and the weights.

    Raises:
        ValueError: there is no such engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    version_directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TRITON_MODELS / "engine_model.py", version_directory / "model.py")
    for source in (TRITON_MODELS / engine).glob("*.py"):
        shutil.copyfile(source, version_directory / source.name)
    for name in ("prompt.py", "request.py", "tensors.py"):
        shutil.copyfile(TRITON_MODELS / name, version_directory / name)


def evaluated_name(digest: str) -> str:
    """Return the name under which a servable is asked by an evaluation; no stable name and no version can have it."""
    return f"_evaluated-{digest[:32]}"


def is_evaluated_name(name: str) -> bool:
    """Say whether a model in the repository is there for an evaluation alone."""
    return _EVALUATED.fullmatch(name) is not None


def publish(source_directory: Path, repository: Path, incoming: Path, name: str) -> Path:
    """Copy a complete model directory into the repository under `name`, in one visible step.

    The same content that is there already is left alone; anything else of that name is set aside, in place of what was
    set aside before.

    Args:
        source_directory: holds config.pbtxt and a version directory.
        repository: what Triton reads.
        incoming: on the same file system; the copy grows here.
        name: the model's name in Triton.

    Returns:
        The directory in the repository.

    Raises:
        ConfigError: the name may not be part of a path.
        ServingError: the source is no model directory.
        StoreError: the file system is full or not writable.
    """
    target = repository / _checked(name)
    if not (source_directory / "config.pbtxt").is_file():
        raise ServingError(f"{source_directory} cannot be published as {name}: it has no config.pbtxt")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        incoming.mkdir(parents=True, exist_ok=True)
        with held_lock(incoming / _LOCK), _copy_of(source_directory, incoming, name) as copy:
            if target.exists():
                damage = damage_of(target)
                if not damage and read_manifest(target)["digest"] == read_manifest(copy)["digest"]:
                    return target
                _set_aside(target, incoming, damage or "it holds another model")
            copy.rename(target)
            sync_directory(repository)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise StoreError(
                f"{name} cannot be published to {repository} ({os.strerror(error.errno)}); "
                "free space or point LLM_RETRAIN_HOME elsewhere"
            ) from error
        raise
    return target


def publish_router(home: Home, stable_name: str) -> Path:
    """Put the router of a stable name into the repository.

    Raises:
        ConfigError: the name may not be part of a path.
    """
    checked_name(stable_name, "serving.model_name")
    routing_file, request_log = home.routing_file(stable_name), home.request_log(stable_name)
    for directory in (routing_file.parent, request_log.parent, home.triton_incoming):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".router-", dir=home.triton_incoming) as assembled:
        version_directory = Path(assembled) / "1"
        version_directory.mkdir()
        for source in (*(TRITON_MODELS / "router").glob("*.py"), *(TRITON_MODELS / f for f in _ROUTER_SHARES)):
            shutil.copyfile(source, version_directory / source.name)
        (Path(assembled) / "config.pbtxt").write_text(router_config(routing_file, request_log), encoding="utf-8")
        return publish(Path(assembled), home.triton_repository, home.triton_incoming, stable_name)


def remove(repository: Path, incoming: Path, name: str) -> None:
    """Take a model that is no longer loaded out of the repository; nothing happens if it is not there.

    Raises:
        ConfigError: the name may not be part of a path.
    """
    target = repository / _checked(name)
    if not target.exists():
        return
    incoming.mkdir(parents=True, exist_ok=True)
    with held_lock(incoming / _LOCK):
        # Under the prefix of unfinished copies, so that what a crash leaves of it goes with the next publication.
        trash = incoming / f"{_COPY_PREFIX}{name}-{uuid.uuid4().hex[:8]}"
        target.rename(trash)
        sync_directory(repository)
        shutil.rmtree(trash)


def _checked(name: str) -> str:
    return name if is_evaluated_name(name) else checked_name(name, "the Triton model name")


@contextmanager
def _copy_of(source: Path, incoming: Path, name: str) -> Iterator[Path]:
    """Yield a synced copy with a manifest; whatever was not renamed away is deleted afterwards."""
    for left_by_a_crash in incoming.glob(f"{_COPY_PREFIX}*"):
        shutil.rmtree(left_by_a_crash)
    copy = Path(tempfile.mkdtemp(prefix=f"{_COPY_PREFIX}{name}-", dir=incoming))
    try:
        copy.chmod(0o755)
        _copy_files(source, copy)
        write_manifest(copy, {"kind": "triton-model"})
        for directory in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            sync_directory(directory)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _copy_files(source: Path, copy: Path) -> None:
    """Real copies: hard links would let a change in the store reach what is being served."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if "__pycache__" in relative.parts or path.name == MANIFEST or path.is_dir():
            continue
        (copy / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / relative)


def _set_aside(target: Path, incoming: Path, reason: str) -> None:
    aside = incoming / f".replaced-{target.name}"
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    log.warning("%s was in the model repository already (%s); it is set aside in %s", target.name, reason, aside)
