"""How what is trained lies on the processes: whole on each (data parallel), or a part on each (fully sharded).

The optimizer works on parts, which are plain tensors; a checkpoint holds whole tensors, so that it can be resumed by
any number of processes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.training.distributed.group import Group

if TYPE_CHECKING:
    import torch


class Whole:
    """Every process holds everything, and adds up its gradients with the others'."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def part(self, weight: "torch.Tensor") -> "torch.Tensor":
        """Return what this process holds of a weight or of its gradient; not a copy."""
        return weight.detach()

    def finish(self, masters: "Sequence[torch.Tensor]") -> None:
        """Make the gradients of the masters those of all processes' rows."""
        import torch

        if self.group.size == 1:
            return
        for master in masters:
            if master.grad is None:  # no row of the step was this process's
                master.grad = torch.zeros_like(master)
        self.group.add_up([master.grad for master in masters if master.grad is not None])

    def norm(self, masters: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """Return the norm of all gradients."""
        import torch

        return torch.nn.utils.get_total_norm([master.grad for master in masters if master.grad is not None])

    def gather(self, part: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """Return the whole of which every process holds a part, laid out as `weight` is."""
        return part

    def own(self, whole: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """Return this process's part of a whole, laid out as `weight` is."""
        return whole


class Sharded(Whole):
    """Every process holds a part of each weight; torch's fully_shard adds up and divides the gradients (ZeRO-3)."""

    def part(self, weight: "torch.Tensor") -> "torch.Tensor":
        """Return what this process holds of a weight or of its gradient; not a copy."""
        sharded: Any = weight.detach()
        part: torch.Tensor = sharded.to_local()
        return part

    def finish(self, masters: "Sequence[torch.Tensor]") -> None:
        """Do nothing: the backward pass has added up."""

    def norm(self, masters: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """Return the norm of all gradients, over all parts."""
        own = super().norm(masters)
        (squares,) = self.group.sum([float(own) ** 2])
        return own.new_tensor(squares**0.5)

    def gather(self, part: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """Return the whole of which every process holds a part, laid out as `weight` is; all have to call it."""
        from torch.distributed.tensor import DTensor

        sharded: Any = weight
        return DTensor.from_local(
            part, sharded.device_mesh, sharded.placements, run_check=False, shape=weight.shape, stride=weight.stride()
        ).full_tensor()

    def own(self, whole: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """Return this process's part of a whole, laid out as `weight` is."""
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = weight
        placed = whole.to(sharded.device_mesh.device_type)
        # Every process has the whole, so none has to send it.
        return distribute_tensor(placed, sharded.device_mesh, sharded.placements, src_data_rank=None).to_local().clone()


def lay_out(transformer: Any, group: Group) -> Whole:
    """Leave a model whole, or divide each of its layers over the processes (torch's fully_shard, FSDP version 2)."""
    if not group.sharded:
        return Whole(group)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(group.device.partition(":")[0], (group.size,))
    for module in list(transformer.modules()):
        if type(module).__name__ in transformer._no_split_modules:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # Gathered weights that outlive a forward pass without a backward one would miss the optimizer's next step.
    fully_shard(transformer, mesh=mesh, reshard_after_forward=True)
    for module in transformer.modules():
        if isinstance(module, FSDPModule):
            # Gradients are summed: the loss was divided by the whole step's divisor. gloo can sum and not scale.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    return Sharded(group)
