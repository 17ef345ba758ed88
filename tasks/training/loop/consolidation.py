"""Elastic weight consolidation (Kirkpatrick et al., 2017): what older answers hang on is moved less.

The penalty is λ/2 Σ F (θ - θ₀)², with F the diagonal of the empirical Fisher information on replay rows: the squared
gradients of single rows' losses, averaged. Its gradient, λ F (θ - θ₀), is added to that of the loss; a step's loss is
said without the penalty, which stands beside it, so that curves with and without it can be compared.
"""

from collections.abc import Sequence

from tasks.training.loop.objectives import Supervised
from tasks.training.loop.optimizer import MasterOptimizer

FISHER_ROWS = 128
"""Replay rows that F is estimated on, at most; Kirkpatrick et al. and later work use tens to hundreds."""


class Consolidation:
    """The start of the weights, and how much older answers hang on each."""

    def __init__(self, objective: Supervised, rows: Sequence[int], weight: float) -> None:
        """Estimate F on some rows of an objective, under the model as it is now."""
        import torch

        self._weight = weight
        weights = list(objective.trainee.trained_parameters().values())
        self._start = [parameter.detach().float().clone() for parameter in weights]
        self._fisher = [torch.zeros_like(start) for start in self._start]
        chosen = list(rows)[:FISHER_ROWS]
        for row in chosen:
            (objective.loss_sum([row]) / objective.divisor([row])).backward()  # type: ignore[no-untyped-call]
            for fisher, parameter in zip(self._fisher, weights, strict=True):
                if parameter.grad is not None:
                    fisher.add_(parameter.grad.float() ** 2 / len(chosen))
                parameter.grad = None
        for fisher in self._fisher:  # what differs in the last digits would let the processes' weights drift apart
            objective.trainee.group.share(fisher)

    def add_gradients(self, optimizer: MasterOptimizer) -> None:
        """Add the penalty's gradient to those of the masters."""
        for master, start, fisher in zip(optimizer.masters, self._start, self._fisher, strict=True):
            pull = self._weight * fisher * (master - start)
            master.grad = pull if master.grad is None else master.grad.add_(pull)

    def penalty(self, optimizer: MasterOptimizer) -> float:
        """Return λ/2 Σ F (θ - θ₀)²."""
        total = 0.0
        for master, start, fisher in zip(optimizer.masters, self._start, self._fisher, strict=True):
            total += (fisher * (master - start) ** 2).sum().item()
        return 0.5 * self._weight * total
