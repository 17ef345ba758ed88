"""Checkpoints of a training that is not finished: complete or absent, as everything in the store.

A checkpoint is a folder `step-000012` with `state.safetensors`, `state.json` and `steps.jsonl`, whose manifest (sha256
and size of each file) is written last, before it gets its name.
"""

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.jsonl import digest_of, read_jsonl, write_jsonl
from tasks.contracts.store import damage_of, write_manifest

if TYPE_CHECKING:
    import torch

log = logging.getLogger("llm_retrain.training")

_TENSORS, _FACTS, _STEPS = "state.safetensors", "state.json", "steps.jsonl"
_KEPT = 2
"""So many of the newest stay: the last one, and the one before should the disk have damaged the last."""


@dataclass(frozen=True)
class Checkpoint:
    """The whole state between two optimizer steps.

    Attributes:
        step: optimizer steps that were taken.
        tensors: masters, the optimizer's state, random states.
        facts: numbers of the same.
        steps: what was said of each step so far.
    """

    step: int
    tensors: "dict[str, torch.Tensor]"
    facts: dict[str, Any]
    steps: list[dict[str, Any]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove those that are older than the last two; return its folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=".step-", dir=folder))
    try:
        save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, working / _TENSORS)
        (working / _FACTS).write_text(json.dumps({"step": checkpoint.step, **checkpoint.facts}), encoding="utf-8")
        write_jsonl(working / _STEPS, checkpoint.steps)
        write_manifest(working, {"kind": "checkpoint"})
        target = folder / f"step-{checkpoint.step:06d}"
        shutil.rmtree(target, ignore_errors=True)  # the same step again, from before the last resumption
        working.rename(target)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    for old in _complete(folder)[:-_KEPT]:
        shutil.rmtree(old)
    return target


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint; damaged ones are set aside, under names that say so, and logged."""
    from safetensors.torch import load_file

    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished)
    for path in reversed(_complete(folder)):
        damage = damage_of(path)
        if damage:
            aside = Path(tempfile.mkdtemp(prefix=f"damaged-{path.name}-", dir=folder))
            path.rename(aside / path.name)
            log.warning("Checkpoint %s is damaged (%s); set aside in %s", path.name, damage, aside)
            continue
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        return Checkpoint(facts.pop("step"), load_file(path / _TENSORS), facts, list(read_jsonl(path / _STEPS)))
    return None


def digest_of_tensors(tensors: "dict[str, torch.Tensor]") -> str:
    """Return the sha256 of names, shapes and bytes: equal if and only if the tensors are, bit by bit."""
    import hashlib

    import torch

    content = {}
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        content[name] = [list(tensor.shape), hashlib.sha256(flat.data).hexdigest()]
    return digest_of(content)


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
