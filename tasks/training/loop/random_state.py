"""The random state of a run, for dropout: a step that is taken again draws the same numbers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CPU, _GPU = "random.cpu", "random.cuda"


def random_state(device: "torch.device") -> "dict[str, torch.Tensor]":
    """Return the state of the CPU's generator, and of the GPU's that trains."""
    import torch

    state = {_CPU: torch.get_rng_state()}
    if device.type == "cuda":
        state[_GPU] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(tensors: "dict[str, torch.Tensor]", device: "torch.device") -> None:
    """Take over what `random_state` returned; `tensors` may hold other things too."""
    import torch

    torch.set_rng_state(tensors[_CPU])
    if _GPU in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors[_GPU], device)
