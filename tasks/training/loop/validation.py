"""The loss on rows that are held out of training: measured now and then, and a reason to stop early."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError
from tasks.contracts.jsonl import digest_of
from tasks.training.loop.interruption import Interruption, StopRequested
from tasks.training.loop.objectives import Objective
from tasks.training.loop.optimizer import MasterOptimizer

if TYPE_CHECKING:
    import torch

_BEST = "best."


class Validation:
    """Remembers the best weights, and says when no better ones are to be expected."""

    def __init__(self, objective: Objective, optimizer: MasterOptimizer, every_steps: int, total_steps: int) -> None:
        """Take the held-out rows as an objective of their own.

        Args:
            objective: over the held-out examples; its training says with how much patience.
            optimizer: whose masters are the weights.
            every_steps: optimizer steps from one measurement to the next.
            total_steps: after the last of them the loss is measured too: that of the weights that are saved.
        """
        self._objective, self._optimizer = objective, optimizer
        self._every_steps, self._total_steps = max(1, every_steps), total_steps
        self._patience = objective.trainee.training.patience
        self._rows_digest = digest_of([[list(e.prompt_ids), list(e.answer_ids)] for e in objective.examples])
        self._best_loss, self._worse, self._measured_step = math.inf, 0, 0
        self._best: dict[str, torch.Tensor] = {}

    @property
    def is_enough(self) -> bool:
        """Whether training has to end."""
        return 0 < self._patience <= self._worse

    def after_step(self, step: int, interruption: Interruption, tell: Callable[..., None]) -> None:
        """Measure, if it is time to and this step was not measured before, and tell the loss.

        Raises:
            StopRequested: somebody asked to stop; nothing of this measurement is kept.
            TrainingError: the loss is not a number.
        """
        is_time = not step % self._every_steps or step == self._total_steps
        if not is_time or step <= self._measured_step:
            return
        loss = self.loss(interruption)
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss after step {step} is {loss}; lower training.learning_rate")
        self._measured_step = step
        tell("validation", step=step, total_steps=self._total_steps, loss=loss, rows_digest=self._rows_digest)
        if not self._patience:
            return
        if loss < self._best_loss:
            self._best_loss, self._worse = loss, 0
            self._best = {name: master.detach().clone() for name, master in self._optimizer.named_masters().items()}
        else:
            self._worse += 1
        if self.is_enough:
            tell("early_stop", step=step, best_loss=self._best_loss)

    def loss(self, interruption: Interruption) -> float:
        """Return the mean loss of the held-out rows, without dropout.

        Sharded processes call the model in step, so they measure all rows before they look for a request.

        Raises:
            StopRequested: somebody asked to stop; all processes raise it.
        """
        import torch

        transformer = self._objective.trainee.transformer
        group, rows = self._objective.trainee.group, range(len(self._objective.examples))
        own, leaves_off = 0.0, False
        transformer.eval()
        with torch.no_grad():  # in inference mode, sharded weights would be gathered into what cannot be trained on
            for row, counts in group.turns(len(rows)):
                leaves_off = interruption.requested and not group.sharded
                if leaves_off:
                    break
                own += self._objective.loss_sum([row], measured=False).item() * counts
        transformer.train()
        # With several processes, a request that came after the last look is heard by all of them here.
        leaves_off = leaves_off or (interruption.requested and group.size > 1)
        total, leave_off = group.sum([own, leaves_off])
        if leave_off:
            raise StopRequested
        return total / self._objective.divisor(rows)

    def restore_best(self) -> None:
        """Go back to the weights with the lowest loss, if training may stop early at all."""
        if self._best:
            self._optimizer.set_masters(self._best)

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that a resumed run needs."""
        return {
            "best_loss": None if math.isinf(self._best_loss) else self._best_loss,
            "worse": self._worse,
            "measured_step": self._measured_step,
        }

    def state(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        """Return what a resumed run needs: numbers, and to the main process whole tensors."""
        best = self._optimizer.whole(self._best)
        return {_BEST + name: tensor for name, tensor in best.items()}, {"validation": self.numbers()}

    def load(self, tensors: "dict[str, torch.Tensor]", facts: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        saved = facts["validation"]
        self._best_loss = math.inf if saved["best_loss"] is None else saved["best_loss"]
        self._worse, self._measured_step = saved["worse"], saved["measured_step"]
        self._best = {name.removeprefix(_BEST): t for name, t in tensors.items() if name.startswith(_BEST)}
