"""What is minimised: answers (sft), chosen before rejected ones (dpo), or a teacher's opinion (distillation).

An objective gives the sum of its loss over some rows, and what the sums of a step are divided by together. So a step
has the same gradient however its rows are divided into micro-batches, whether they are of equal length or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.training.loop.examples import Example
from tasks.training.loop.trainee import Trainee

if TYPE_CHECKING:
    import torch


class Objective(ABC):
    """A loss over examples, which are named by their number."""

    def __init__(self, trainee: Trainee, examples: Sequence[Example]) -> None:
        self.trainee, self.examples = trainee, examples

    @abstractmethod
    def loss_sum(self, rows: Sequence[int], measured: bool = True) -> "torch.Tensor":
        """Return the loss of some examples, summed.

        Args:
            rows: their numbers.
            measured: whether `measures` shall speak of them; not where a pass is repeated, or is no part of a step.
        """

    def divisor(self, rows: Sequence[int]) -> int:
        """Return what the loss of these examples is divided by: their answers' tokens, unless said otherwise."""
        return sum(len(self.examples[row].answer_ids) for row in rows)

    def measures(self) -> dict[str, float]:
        """Return what is said of a step beside its loss, of all examples since the last call."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Compute what is needed of the model as it is before its first step."""

    def _answers(self, rows: Sequence[int]) -> list[Example]:
        return [replace(self.examples[row], rejected_ids=()) for row in rows]


class Supervised(Objective):
    """Cross-entropy of the answers' tokens, in nats."""

    def loss_sum(self, rows: Sequence[int], measured: bool = True) -> "torch.Tensor":
        """Return the loss of some examples, summed over their answers' tokens."""
        return self.trainee.answer_losses(self._answers(rows))[0].sum()


class Preference(Objective):
    """Direct preference optimisation (Rafailov et al., 2023): -log σ(β (Δ chosen - Δ rejected)).

    Δ is the log-probability of an answer under the model less that under the model as it was at the start.
    """

    def __init__(self, trainee: Trainee, examples: Sequence[Example], beta: float) -> None:
        super().__init__(trainee, examples)
        self._beta = beta
        self._margins_at_start: list[float] = []
        self._rewards: list[float] = []

    def divisor(self, rows: Sequence[int]) -> int:
        """Return the number of pairs."""
        return len(rows)

    def prepare(self) -> None:
        """Compute the margin of each pair under the model as it starts."""
        import torch

        margins, group = [0.0] * len(self.examples), self.trainee.group
        with torch.no_grad():  # in inference mode, sharded weights would be gathered into what cannot be trained on
            for row, counts in group.turns(len(margins)):
                margins[row] += self._margins([row]).item() * counts
        self._margins_at_start = group.sum(margins)

    def loss_sum(self, rows: Sequence[int], measured: bool = True) -> "torch.Tensor":
        """Return the loss of some pairs, summed."""
        from torch.nn.functional import logsigmoid

        margins = self._margins(rows)
        at_start = margins.new_tensor([self._margins_at_start[row] for row in rows])
        rewards = self._beta * (margins - at_start)
        if measured:
            self._rewards += [reward.item() for reward in rewards.detach()]
        return -logsigmoid(rewards).sum()

    def measures(self) -> dict[str, float]:
        """Return the mean of β (Δ chosen - Δ rejected), and the share of pairs in which it is above zero.

        Both are of the model before the step, as trl's rewards/margins and rewards/accuracies.
        """
        rewards, self._rewards = self._rewards, []
        own = [sum(rewards), sum(reward > 0 for reward in rewards), len(rewards)]
        total, above, pairs = self.trainee.group.sum(own)
        return {"reward_margin": total / pairs, "reward_accuracy": above / pairs} if pairs else {}

    def _margins(self, rows: Sequence[int]) -> "torch.Tensor":
        """Return log p(chosen) - log p(rejected) of each pair, (B,)."""
        rejected = [Example(self.examples[row].prompt_ids, self.examples[row].rejected_ids) for row in rows]
        losses, answers = self.trainee.answer_losses([*self._answers(rows), *rejected])
        log_p = losses.new_zeros(2 * len(rows)).index_add(0, answers, -losses)
        return log_p[: len(rows)] - log_p[len(rows) :]


class Distillation(Objective):
    """Knowledge distillation (Hinton et al., 2015): (1 - w) cross-entropy + w T² KL(teacher ‖ student) at T."""

    def __init__(self, trainee: Trainee, examples: Sequence[Example], teacher: Any) -> None:
        super().__init__(trainee, examples)
        self._teacher = teacher

    def loss_sum(self, rows: Sequence[int], measured: bool = True) -> "torch.Tensor":
        """Return the loss of some examples, summed over their answers' tokens."""
        import torch
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        batch, logits = self.trainee.answer_logits(self._answers(rows))
        logits = logits.float()
        with torch.no_grad():
            taught = self._teacher(
                input_ids=batch.ids, attention_mask=batch.attended, logits_to_keep=batch.wanted
            ).logits.float()
        weight, temperature = self.trainee.training.teacher_weight, self.trainee.training.temperature
        # A vocabulary may be padded to another size than the teacher's; the tokenizer is the same.
        words = min(taught.shape[-1], logits.shape[-1])
        divergence = kl_div(
            log_softmax(logits[:, :words] / temperature, dim=-1),
            log_softmax(taught[:, :words] / temperature, dim=-1),
            reduction="sum",
            log_target=True,
        )
        own = cross_entropy(logits, batch.targets, reduction="sum")
        return (1 - weight) * own + weight * temperature**2 * divergence


def make_objective(trainee: Trainee, examples: Sequence[Example], teacher: Any = None) -> Objective:
    """Return the configured objective over some examples."""
    if trainee.training.objective == "dpo":
        return Preference(trainee, examples, trainee.training.dpo_beta)
    if trainee.training.objective == "distillation":
        return Distillation(trainee, examples, teacher)
    return Supervised(trainee, examples)
