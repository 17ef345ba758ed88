"""A training step on a model without weights: the very code that trains, on tensors that have a shape and no bytes."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.training_config import TrainingSection
from tasks.training.loop.examples import Example
from tasks.training.loop.objectives import make_objective
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.loop.trainee import Place, Trainee
from tasks.training.shape import linear_layers, model_without_weights

if TYPE_CHECKING:
    import torch

    from tasks.training.plan.ledger import Ledger


@dataclass(frozen=True)
class Rehearsed:
    """What a step of one micro-batch was seen to need.

    Attributes:
        at_peak: bytes of the living tensors by kind, at the moment when they are most.
        resident: bytes that stay between steps, by kind: weights, masters, optimizer state.
        kept_bytes: what glibc's heap keeps of small tensors that are freed by the time of the peak, since it gives
            nothing back: their own peak and that of large tensors, which are not in the heap, less the common one.
        flops: floating-point operations of the step, by kind.
        moved_bytes: what the step's operations write.
        calls: operations of the step that compute something.
        products: matrix products of different shapes.
        trained_parameters: numbers that are trained.
    """

    at_peak: dict[str, int]
    resident: dict[str, int]
    kept_bytes: int
    flops: dict[str, int]
    moved_bytes: int
    calls: int
    products: int
    trained_parameters: int

    @property
    def peak_bytes(self) -> int:
        """Bytes of all tensors at the peak."""
        return sum(self.at_peak.values())


class Rehearsal:
    """A trainee without weights, on which micro-batches of any shape can be tried."""

    def __init__(self, base: Path, training: TrainingSection, place: Place, teacher: str = "") -> None:
        """Put the method's parts on the base's shape.

        Raises:
            TrainingError: the model's shape rules out what is configured.
        """
        import torch

        if training.method == "pissa":  # the same layers; where they start is computed from weights that are not here
            training = training.model_copy(update={"method": "lora"})
        self.training, self.place = training, place
        self.trainee = Trainee(base, training, Place(torch.device("meta"), place.dtype, place.device.type))
        self.config = self.trainee.transformer.config
        self.file_dtype = _file_dtype(base)
        layers = linear_layers(self.trainee.transformer).values()
        self.largest_layer = _largest(layers)
        self.is_fast = self.trainee.fast is not None
        self._teacher = model_without_weights(Path(teacher), dtype=place.dtype).eval() if teacher else None

    def step(self, batch: Sequence[Example], accumulates: bool) -> Rehearsed:
        """Take an optimizer step with one micro-batch; the optimizer has stepped before, so its state is there.

        Args:
            batch: its rows.
            accumulates: whether other micro-batches of the step come before it, whose gradients are there already.
        """
        import torch

        from tasks.training.plan.ledger import Ledger

        trainee = self.trainee
        trainee.transformer.train()
        trained = trainee.trained_parameters()
        objective = make_objective(trainee, batch, self._teacher)
        namer = _Namer(self.config.vocab_size, max(len(example) for example in batch), list(trained.values()))
        ledger = Ledger(namer.name)
        for tensor in _all_tensors(trainee, self._teacher):
            ledger.add(tensor, "weights")
        with ledger:
            optimizer = self._stepped_optimizer(ledger, trained)
            resident = dict(ledger.living)
            if accumulates:
                with ledger.all_of("gradients"):
                    for weight in trained.values():
                        weight.grad = torch.empty_like(weight)
            ledger.begin_peaks()
            objective.prepare()
            ledger.forget_costs()
            loss = objective.loss_sum(range(len(batch))) / objective.divisor(range(len(batch)))
            optimizer.backward(loss)
            del loss
            with ledger.all_of("gradients"):
                optimizer.take_gradients()
                optimizer.step(1.0)
        return Rehearsed(
            at_peak=dict(ledger.at_peak),
            resident=resident,
            kept_bytes=ledger.most_small + ledger.most_large - ledger.peak_bytes,
            flops=dict(ledger.flops),
            moved_bytes=ledger.moved_bytes,
            calls=ledger.calls,
            products=len(ledger.products),
            trained_parameters=sum(weight.numel() for weight in trained.values()),
        )

    def _stepped_optimizer(self, ledger: "Ledger", trained: "dict[str, torch.nn.Parameter]") -> MasterOptimizer:
        """Return an optimizer that has its state, as after any step but the first."""
        import torch

        with ledger.all_of("masters"):
            # Where the tensors are, not where they would be: nothing asks a GPU for memory that is only counted.
            optimizer = MasterOptimizer(trained, self.training, self.trainee.place)
        with ledger.all_of("optimizer"):
            for master in optimizer.masters:
                master.grad = torch.empty_like(master)
            optimizer.step(1.0)
        return optimizer


def _file_dtype(base: Path) -> "torch.dtype | None":
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base, trust_remote_code=False).dtype  # type: ignore[no-any-return]


class _Namer:
    """Says the kind of a tensor by its shape."""

    def __init__(self, words: int, tokens: int, trained: "list[torch.Tensor]") -> None:
        self._words, self._tokens = words, tokens
        self._trained = Counter(tuple(each.shape) for each in trained)

    def name(self, tensor: "torch.Tensor") -> str:
        shape = tuple(tensor.shape)
        if shape in self._trained:
            return "gradients"
        if shape and shape[-1] == self._words:
            return "logits"
        if len(shape) == 4 and shape[-2] == self._tokens and shape[-1] >= self._tokens:
            return "attention"
        return "activations"


def _all_tensors(trainee: Trainee, teacher: Any) -> "list[torch.Tensor]":
    models = [each for each in (trainee.transformer, trainee.layers, trainee.virtual, teacher) if each is not None]
    found: list[Any] = []
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            found.append(tensor)
            state = getattr(tensor, "quant_state", None)
            if state is not None:
                found += [state.absmax, state.code, state.state2.absmax, state.state2.code]
    return found


def _largest(layers: Iterable[Any]) -> tuple[int, int]:
    """Return the sides of the layer with the most numbers; a weight in 4 bits has another shape than its layer."""
    sides = [
        (int(layer.in_features), int(layer.out_features)) if hasattr(layer, "in_features") else layer.weight.shape
        for layer in layers
    ]
    first, second = max(sides, key=math.prod)
    return first, second
