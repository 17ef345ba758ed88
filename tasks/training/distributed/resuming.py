"""What a process that joins does not have itself: the order, the rows, the newest checkpoint; and the same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError
from tasks.training.distributed.group import Group
from tasks.training.loop.checkpoints import Checkpoint

if TYPE_CHECKING:
    import torch

_ROW_FILES = ("rows", "replay")
_MODELS = ("base", "teacher")


def shared_order(group: Group, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the main process's order; on other machines with its rows in `folder`, and with models of their own.

    Args:
        group: nothing is sent on one machine, where all read the same files.
        order: the main process's; another machine's names only what it has elsewhere: `base`, `teacher`.
        folder: of this process alone.
    """
    if group.nodes == 1:
        return order
    shared: dict[str, Any] = group.share_facts(order)
    for key in _ROW_FILES:
        content = group.share_bytes(Path(shared[key]).read_bytes() if group.is_main and shared[key] else b"")
        if shared[key]:
            (folder / f"{key}.jsonl").write_bytes(content)
            shared[key] = str(folder / f"{key}.jsonl")
    elsewhere = {key: order[key] for key in _MODELS if not group.is_main and order.get(key)}
    return {**shared, **elsewhere}


def shared_checkpoint(
    group: Group, found: Checkpoint | None, keep: "Callable[[str, torch.Tensor], torch.Tensor]"
) -> Checkpoint | None:
    """Return the checkpoint that the main process has found, which sends it to the others.

    Args:
        group: alone, it is the one that was found.
        found: by the main process, which has read it and looked whether it fits; None: there is none.
        keep: what a process keeps of a tensor, by its name: a part of it, where weights are sharded.
    """
    import torch

    if group.size == 1:
        return found
    facts = found and {
        "step": found.step,
        "facts": found.facts,
        "told": found.told,
        "tensors": {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in found.tensors.items()},
    }
    facts = group.share_facts(facts)
    if facts is None:
        return None
    tensors = {}
    for name, (dtype, shape) in facts["tensors"].items():
        whole = found.tensors[name] if found else torch.empty(shape, dtype=getattr(torch, dtype))
        group.share(whole)
        tensors[name] = keep(name, whole)
    return Checkpoint(facts["step"], tensors, facts["facts"], facts["told"])


def start_equal(group: Group, trained: "list[torch.Tensor]", weights: "list[torch.Tensor]") -> None:
    """Give every process the main one's fresh weights, and make sure that the others are the same.

    Args:
        group: the processes.
        trained: what is random at the start.
        weights: all weights, those among them.

    Raises:
        TrainingError: this process has read another base model than the main one.
    """
    if group.size == 1:
        return
    import torch

    for tensor in trained:
        group.share(tensor)
    own = torch.tensor([_sum_of_bytes(weight) for weight in weights], dtype=torch.int64)
    main = own.clone()
    group.share(main)
    if not torch.equal(own, main):
        raise TrainingError(
            f"process {group.rank} of {group.size} has read another base model than process 0; copy the base model of "
            "the first machine to the others"
        )


def _sum_of_bytes(weight: "torch.Tensor") -> int:
    """Add the bytes up as whole numbers: the same on every device, and another one if anything differs, most likely."""
    import torch

    flat = weight.detach().contiguous().view(-1).view(torch.uint8)
    words = flat.view(torch.int32) if flat.numel() % 4 == 0 else flat
    return int(words.sum(dtype=torch.int64))
