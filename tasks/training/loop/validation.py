"""The loss on rows that are held out of training: measured now and then, and a reason to stop early."""

import math
from typing import TYPE_CHECKING, Any

from tasks.contracts.worker import say
from tasks.training.loop.objectives import Objective
from tasks.training.loop.optimizer import MasterOptimizer

if TYPE_CHECKING:
    import torch

_BEST = "best."


class Validation:
    """Remembers the best weights, and says when no better ones are to be expected."""

    def __init__(self, objective: Objective, optimizer: MasterOptimizer, every_steps: int, patience: int) -> None:
        """Take the held-out rows as an objective of their own.

        Args:
            objective: over the held-out examples.
            optimizer: whose masters are the weights.
            every_steps: optimizer steps from one measurement to the next.
            patience: measurements without a lower loss after which it is enough; 0: never, and the last weights stay.
        """
        self._objective, self._optimizer = objective, optimizer
        self._every_steps, self._patience = max(1, every_steps), patience
        self._best_loss, self._worse = math.inf, 0
        self._best: dict[str, torch.Tensor] = {}

    def after_step(self, step: int) -> bool:
        """Measure if it is time to, say the loss, and return whether training has to end."""
        if step % self._every_steps:
            return False
        loss = self.loss()
        say("validation", step=step, loss=loss)
        if not self._patience:
            return False
        if loss < self._best_loss:
            self._best_loss, self._worse = loss, 0
            self._best = {name: master.detach().clone() for name, master in self._optimizer.named_masters().items()}
        else:
            self._worse += 1
        if self._worse >= self._patience:
            say("early_stop", step=step, best_loss=self._best_loss)
            return True
        return False

    def loss(self) -> float:
        """Return the mean loss of the held-out rows, without dropout."""
        import torch

        transformer = self._objective.trainee.transformer
        transformer.eval()
        with torch.inference_mode():
            rows = range(len(self._objective.examples))
            total = sum(self._objective.loss_sum([row]).item() for row in rows)
        transformer.train()
        return total / self._objective.divisor(rows)

    def restore_best(self) -> None:
        """Go back to the weights with the lowest loss, if training may stop early at all."""
        if self._best:
            self._optimizer.set_masters(self._best)

    def state(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        """Return what a resumed run needs."""
        facts = {"best_loss": None if math.isinf(self._best_loss) else self._best_loss, "worse": self._worse}
        return {_BEST + name: tensor for name, tensor in self._best.items()}, {"validation": facts}

    def load(self, tensors: "dict[str, torch.Tensor]", facts: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        saved = facts["validation"]
        self._best_loss = math.inf if saved["best_loss"] is None else saved["best_loss"]
        self._worse = saved["worse"]
        self._best = {name.removeprefix(_BEST): t for name, t in tensors.items() if name.startswith(_BEST)}
