"""AdamW on fp32 masters of what is trained."""

import math
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training.distributed.group import ALONE
from tasks.training.distributed.layout import Whole
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
    Where weights are sharded, masters and state are those of this process's parts.
    """

    def __init__(
        self,
        weights: "dict[str, torch.nn.Parameter]",
        training: TrainingSection,
        place: Place,
        layout: Whole | None = None,
    ) -> None:
        import torch

        self._layout = layout or Whole(ALONE)
        self._names, self._weights = list(weights), list(weights.values())
        with torch.no_grad():
            self._parts = [self._layout.part(weight) for weight in self._weights]
        self.masters = [part if part.dtype == torch.float32 else part.float().clone() for part in self._parts]
        self._optimizer = _adamw(self.masters, training, place)
        # In a rehearsal, gradients have no values to scale.
        scales = place.dtype == torch.float16 and place.device.type != "meta"
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=scales)
        self._max_norm = training.max_gradient_norm

    def backward(self, loss: "torch.Tensor") -> None:
        """Add the gradients of a part of the step's loss."""
        self.add_up()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def add_up(self) -> None:
        """Move the gradients so far to the masters, before a part is passed through the model.

        Added up in bf16, which has 8 bits of a number, those of the hundredth part would round to nothing. Gradients
        that are fp32 stay where they are; with one part a step there are none yet.
        """
        import torch

        with torch.no_grad():
            for weight, master in zip(self._weights, self.masters, strict=True):
                if weight.grad is not None and weight.dtype != torch.float32:
                    self._move_gradient(weight, master)

    def take_gradients(self) -> None:
        """Move the gradients to the masters, in fp32, unscaled and added up over the processes."""
        import torch

        with torch.no_grad():
            for weight, master in zip(self._weights, self.masters, strict=True):
                if weight.grad is not None:
                    self._move_gradient(weight, master)
        self._layout.finish(self.masters)
        self._scaler.unscale_(self._optimizer)

    def _move_gradient(self, weight: "torch.Tensor", master: "torch.Tensor") -> None:
        assert weight.grad is not None
        gradient = self._layout.part(weight.grad)
        master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)
        weight.grad = None

    def drop_gradients(self) -> None:
        """Forget what `backward` added: the step begins anew."""
        for tensor in (*self._weights, *self.masters):
            tensor.grad = None

    def step(self, rate: float) -> float:
        """Clip, step at a learning rate, and return the gradients' norm before clipping.

        Returns:
            The norm; if it is not finite, scaled gradients were too large for fp16: nothing was changed, and the scale
            of the next ones is half.

        Raises:
            TrainingError: the norm is not a number, and loss scaling does not explain it.
        """
        import torch

        total = self._layout.norm(self.masters)
        torch.nn.utils.clip_grads_with_norm_(self.masters, self._max_norm, total)
        norm = total.item()
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise TrainingError(f"the gradient's norm is {norm}; lower training.learning_rate")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        # A fused kernel changes weights without counting it, and the fast way asks for the count.
        torch.autograd.graph.increment_version(self.masters)
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
            for part, master in zip(self._parts, self.masters, strict=True):
                if part.data_ptr() != master.data_ptr():
                    part.copy_(master)

    def named_masters(self) -> "dict[str, torch.Tensor]":
        """Return the masters by name; they are not copies."""
        return dict(zip(self._names, self.masters, strict=True))

    def whole(self, parts: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Return to the main process the wholes of parts that are named as the masters are; to the others nothing.

        All processes have to call it. Wholes that were sharded are on the CPU, where they take no memory of a GPU.
        """
        weights, group = dict(zip(self._names, self._weights, strict=True)), self._layout.group
        wholes = {}
        for name, part in parts.items():
            whole = self._layout.gather(part, weights[name])
            if group.is_main:
                wholes[name] = whole.cpu() if group.sharded else whole
        return wholes

    def whole_weights(self) -> "dict[str, torch.Tensor]":
        """Return to the main process the trained weights by name, in the precision that they compute in."""
        return self.whole(dict(zip(self._names, self._parts, strict=True)))

    def own(self, name: str, whole: "torch.Tensor") -> "torch.Tensor":
        """Return this process's part of a tensor of a checkpoint, by its name there."""
        kind, _, rest = name.partition(".")
        if f"{kind}." == _STATE:
            weight = self._weights[int(rest.partition(".")[0])]
        elif rest in self._names:
            weight = self._weights[self._names.index(rest)]
        else:
            return whole  # a random state
        return self._layout.own(whole, weight) if whole.shape == weight.shape else whole

    def set_masters(self, values: "dict[str, torch.Tensor]") -> None:
        """Take over values by name, in masters and weights."""
        for name, master in self.named_masters().items():
            master.copy_(values[name])
        self.copy_back()

    def state(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        """Return everything a resumed run needs, by name: numbers, and to the main process whole tensors."""
        import torch

        tensors = {_MASTER + name: master for name, master in self.whole(self.named_masters()).items()}
        numbers: dict[str, Any] = {"scaler": self._scaler.state_dict()}
        # Not of the optimizer's state_dict(), in which bitsandbytes puts some of it into a dictionary of its own.
        for place, master in enumerate(self.masters):
            for key, value in self._optimizer.state.get(master, {}).items():
                if isinstance(value, torch.Tensor) and value.dim() and value.shape == master.shape:
                    for whole in self.whole({self._names[place]: value}).values():
                        tensors[f"{_STATE}{place}.{key}"] = whole
                elif isinstance(value, torch.Tensor):
                    tensors[f"{_STATE}{place}.{key}"] = value
                else:
                    numbers[f"{_STATE}{place}.{key}"] = value
        return tensors, numbers

    def misfit(self, tensors: "dict[str, torch.Tensor]", digest: str) -> str:
        """Say why tensors are not what `state` would return here; the empty string if they may be.

        Args:
            tensors: what is to be loaded, whole.
            digest: what the masters had when they were saved.
        """
        # Of the weights, as masters may be parts of them.
        shapes = {name: tuple(weight.shape) for name, weight in zip(self._names, self._weights, strict=True)}
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
            if tensor.numel() > 1 and tensor.numel() != self._weights[int(place)].numel():
                return f"its {name} has {tensor.numel()} values for {self._weights[int(place)].numel()} weights"
        return ""

    def load(self, tensors: "dict[str, torch.Tensor]", numbers: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.set_masters({name.removeprefix(_MASTER): t for name, t in tensors.items() if name.startswith(_MASTER)})
        states: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *numbers.items()]:
            if name.startswith(_STATE):
                place, _, key = name.removeprefix(_STATE).partition(".")
                states.setdefault(int(place), {})[key] = value
        self._load_state(states)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(numbers["scaler"])

    def _load_state(self, states: "dict[int, dict[str, Any]]") -> None:
        """Take over what belongs to each master, by its place."""
        import torch

        optimizer: Any = self._optimizer
        if isinstance(optimizer, torch.optim.AdamW):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
            return
        for place, saved in states.items():
            # bitsandbytes would load it to the GPU for good: only what it makes itself is paged.
            optimizer.init_state(optimizer.param_groups[0], self.masters[place], 0, place)
            made = optimizer.state[self.masters[place]]
            for key, value in saved.items():
                made[key] = made[key].copy_(value) if isinstance(value, torch.Tensor) else value


def _adamw(masters: "list[torch.Tensor]", training: TrainingSection, place: Place) -> "torch.optim.Optimizer":
    """Return AdamW; for QLoRA on a GPU the paged one, whose state moves to the host when the memory is short."""
    import torch

    settings: dict[str, Any] = {"lr": training.peak_learning_rate, "weight_decay": training.weight_decay}
    if training.method == "qlora" and place.device.type == "cuda":
        from bitsandbytes.optim import PagedAdamW

        paged: torch.optim.Optimizer = PagedAdamW(masters, **settings)
        return paged
    # One kernel a tensor: neither temporaries nor ten calls each. A rehearsal's tensors have no kernel; fp16 gradients
    # that overflowed are skipped by the scaler, which tells a fused kernel of it in another way.
    is_fused = place.device.type in ("cpu", "cuda") and place.dtype != torch.float16
    return torch.optim.AdamW(masters, fused=is_fused, **settings)
