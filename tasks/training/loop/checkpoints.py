"""Checkpoints of a training that is not finished: complete or absent, as everything in the store.

A checkpoint is a folder `step-000012` with `state.safetensors`, `state.json` and `events.jsonl`, whose manifest (sha256
and size of each file) is written last, before it gets its name.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.jsonl import digest_of, read_jsonl, write_jsonl
from tasks.contracts.store import damage_of, write_manifest
from tasks.contracts.worker import say

if TYPE_CHECKING:
    import torch

log = logging.getLogger("llm_retrain.training")

_TENSORS, _FACTS, _EVENTS = "state.safetensors", "state.json", "events.jsonl"
_SMALLER = "micro_batch_tokens"
_TRAINING, _STEP = "training", "step"
_KEPT = 2
"""So many of the newest stay: the last one, and the one before should the disk have damaged the last."""


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be used, with the reason."""


class UnsavedCheckpoint(Exception):
    """A checkpoint that could not be written, with the reason; those before it are as they were."""


@dataclass(frozen=True)
class Checkpoint:
    """The whole state between two optimizer steps.

    Attributes:
        step: optimizer steps that were taken.
        tensors: masters, the optimizer's state, random states.
        facts: numbers of the same.
        told: the events of the steps so far.
    """

    step: int
    tensors: "dict[str, torch.Tensor]"
    facts: dict[str, Any]
    told: list[dict[str, Any]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove those that are older than the last two; return its folder.

    Raises:
        UnsavedCheckpoint: the disk is full, or not writable.
    """
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=".step-", dir=folder))
        try:
            _write(working, checkpoint, folder.name)
            target = folder / f"step-{checkpoint.step:06d}"
            shutil.rmtree(target, ignore_errors=True)  # the same step again, from before the last resumption
            working.rename(target)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnsavedCheckpoint(reason) from error
    except SafetensorError as error:
        raise UnsavedCheckpoint(str(error)) from error
    for old in checkpoints_in(folder)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def try_to_save(folder: Path, checkpoint: Checkpoint) -> bool:
    """Write a checkpoint, say so, and return whether it could be written."""
    try:
        save_checkpoint(folder, checkpoint)
    except UnsavedCheckpoint as error:
        say("checkpoint_failed", step=checkpoint.step, reason=str(error))
        return False
    say("checkpoint", step=checkpoint.step)
    return True


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the complete checkpoints, newest first; what a killed process left half-written is not among them."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest_sound(folder: Path, misfit: Callable[[Checkpoint], str]) -> Checkpoint | None:
    """Return the newest checkpoint that is complete and fits; newer ones that are not are set aside.

    Args:
        folder: of one training.
        misfit: says why a checkpoint does not fit; the empty string if it does.
    """
    remove_unfinished(folder)
    for path in checkpoints_in(folder):
        try:
            checkpoint = read_checkpoint(path)
            reason = misfit(checkpoint)
            if reason:
                raise DamagedCheckpoint(reason)
        except DamagedCheckpoint as damage:
            set_aside(path, damage)
        else:
            return checkpoint
    return None


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DamagedCheckpoint: it is not what its manifest says, cannot be read, or is of another training.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        damage = damage_of(path)
        if damage:
            raise DamagedCheckpoint(damage)
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        training, step = facts.pop(_TRAINING), facts.pop(_STEP)
        if training != path.parent.name:
            raise DamagedCheckpoint(f"it is of another training, {training[:12]}")
        if path.name != f"step-{step:06d}":
            raise DamagedCheckpoint(f"it is of step {step}")
        return Checkpoint(step, load_file(path / _TENSORS), facts, list(read_jsonl(path / _EVENTS)))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"it cannot be read: {type(error).__name__}: {error}") from error


def set_aside(path: Path, damage: DamagedCheckpoint) -> None:
    """Give a damaged checkpoint another place, so that nothing reads it again, and name it to the user."""
    aside = Path(tempfile.mkdtemp(prefix=f"damaged-{path.name}-", dir=path.parent)) / path.name
    path.rename(aside)
    log.warning("Checkpoint %s is damaged (%s); set aside in %s", path.name, damage, aside)
    say("damaged_checkpoint", name=path.name, damage=str(damage), aside=str(aside))


def ask_for_smaller(folder: Path, tokens: int) -> None:
    """Ask the next attempt of a training for micro-batches of `tokens` tokens at most."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SMALLER).write_text(str(tokens), encoding="ascii")


def asked_tokens(folder: Path) -> int:
    """Return what `ask_for_smaller` asked for; 0: nothing."""
    try:
        return int((folder / _SMALLER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def digest_of_tensors(tensors: "dict[str, torch.Tensor]") -> str:
    """Return the sha256 of names, shapes and bytes: equal if and only if the tensors are, bit by bit."""
    import hashlib

    import torch

    content = {}
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        content[name] = [list(tensor.shape), hashlib.sha256(flat.data).hexdigest()]
    return digest_of(content)


def _write(working: Path, checkpoint: Checkpoint, training: str) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, working / _TENSORS)
    facts = {_TRAINING: training, _STEP: checkpoint.step, **checkpoint.facts}
    (working / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    write_jsonl(working / _EVENTS, checkpoint.told)
    write_manifest(working, {"kind": "checkpoint"})
