"""AdamW on fp32 masters of what is trained."""

import math
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.checkpoints import digest_of_tensors
from tasks.training.loop.trainee import Place

if TYPE_CHECKING:
    import torch

_MASTER, _STATE = "master.", "optimizer."
_LEAST_SCALE = 1.0
"""Loss scaling lifts gradients into the reach of fp16. From here on it would push them down: they overflow unscaled."""


class MasterOptimizer:
    """Steps on fp32 masters and copies them back: in bf16 alone, late small updates would round to nothing.

    Weights that are fp32 are their own masters. Gradients in fp16 are scaled, so that small ones do not vanish.
    """

    def __init__(self, weights: "dict[str, torch.nn.Parameter]", training: TrainingSection, place: Place) -> None:
        import torch

        self._names, self._weights = list(weights), list(weights.values())
        # Not `.data`, which has a version counter of its own: who looks at the weight's would not see a step.
        self.masters = [
            weight.detach() if weight.dtype == torch.float32 else weight.detach().float().clone()
            for weight in self._weights
        ]
        self._optimizer = _adamw(self.masters, training, place)
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=place.dtype == torch.float16)
        self._max_norm = training.max_gradient_norm

    def backward(self, loss: "torch.Tensor") -> None:
        """Add the gradients of a part of the step's loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def take_gradients(self) -> None:
        """Move the gradients to the masters, in fp32 and unscaled."""
        for weight, master in zip(self._weights, self.masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        self._scaler.unscale_(self._optimizer)

    def drop_gradients(self) -> None:
        """Forget what `backward` added: the step begins anew."""
        for weight in self._weights:
            weight.grad = None

    def step(self, rate: float) -> float:
        """Clip, step at a learning rate, and return the gradients' norm before clipping.

        Returns:
            The norm; if it is not finite, scaled gradients were too large for fp16: nothing was changed, and the scale
            of the next ones is half.

        Raises:
            TrainingError: the norm is not a number, and loss scaling does not explain it.
        """
        import torch

        norm = torch.nn.utils.clip_grad_norm_(self.masters, self._max_norm).item()
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise TrainingError(f"the gradient's norm is {norm}; lower training.learning_rate")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for master in self.masters:
            master.grad = None
        self.copy_back()
        if not math.isfinite(norm) and self._scaler.get_scale() < _LEAST_SCALE:
            raise TrainingError(
                f"the gradient's norm is {norm} in fp16, although the loss is not scaled up any more; set "
                "training.precision to bf16 or fp32, or lower training.learning_rate"
            )
        return norm

    def copy_back(self) -> None:
        """Give the weights the masters' values."""
        import torch

        with torch.no_grad():
            for weight, master in zip(self._weights, self.masters, strict=True):
                if weight.data_ptr() != master.data_ptr():
                    weight.copy_(master)

    def named_masters(self) -> "dict[str, torch.Tensor]":
        """Return the masters by name; they are not copies."""
        return dict(zip(self._names, self.masters, strict=True))

    def set_masters(self, values: "dict[str, torch.Tensor]") -> None:
        """Take over values by name, in masters and weights."""
        for name, master in self.named_masters().items():
            master.copy_(values[name])
        self.copy_back()

    def state(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        """Return everything a resumed run needs: tensors and numbers by name."""
        import torch

        tensors = {_MASTER + name: master for name, master in self.named_masters().items()}
        numbers: dict[str, Any] = {"scaler": self._scaler.state_dict()}
        for place, state in self._optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_STATE}{place}.{key}"] = value
                else:
                    numbers[f"{_STATE}{place}.{key}"] = value
        return tensors, numbers

    def misfit(self, tensors: "dict[str, torch.Tensor]", digest: str) -> str:
        """Say why tensors are not what `state` would return here; the empty string if they may be.

        Args:
            tensors: what is to be loaded.
            digest: what the masters had when they were saved.
        """
        shapes = {name: tuple(master.shape) for name, master in self.named_masters().items()}
        masters = {name.removeprefix(_MASTER): t for name, t in tensors.items() if name.startswith(_MASTER)}
        given = {name: tuple(master.shape) for name, master in masters.items()}
        if shapes != given:
            name = min(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
            return f"its weights {name} have the shape {given.get(name)} instead of {shapes.get(name)}"
        if digest_of_tensors(masters) != digest:
            return "its weights have another digest than was written down"
        for name, tensor in tensors.items():
            place = name.removeprefix(_STATE).partition(".")[0]
            if not name.startswith(_STATE):
                continue
            if not place.isdigit() or int(place) >= len(self.masters):
                return f"its {name} is of weights that are not trained"
            if tensor.numel() > 1 and tensor.numel() != self.masters[int(place)].numel():
                return f"its {name} has {tensor.numel()} values for {self.masters[int(place)].numel()} weights"
        return ""

    def load(self, tensors: "dict[str, torch.Tensor]", numbers: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.set_masters({name.removeprefix(_MASTER): t for name, t in tensors.items() if name.startswith(_MASTER)})
        states: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *numbers.items()]:
            if name.startswith(_STATE):
                place, _, key = name.removeprefix(_STATE).partition(".")
                states.setdefault(int(place), {})[key] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(numbers["scaler"])


def _adamw(masters: "list[torch.Tensor]", training: TrainingSection, place: Place) -> "torch.optim.Optimizer":
    """Return AdamW; for QLoRA on a GPU the paged one, whose state moves to the host when the memory is short."""
    import torch

    settings: dict[str, Any] = {"lr": training.peak_learning_rate, "weight_decay": training.weight_decay}
    if training.method == "qlora" and place.device.type == "cuda":
        from bitsandbytes.optim import PagedAdamW

        paged: torch.optim.Optimizer = PagedAdamW(masters, **settings)
        return paged
    return torch.optim.AdamW(masters, **settings)
