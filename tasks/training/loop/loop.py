"""The optimizer steps: each whole or not at all, saved now and then, and stopped for good or bad reasons."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.worker import say
from tasks.training.loop.batches import micro_batches
from tasks.training.loop.checkpoints import Checkpoint, digest_of_tensors, newest_checkpoint, save_checkpoint
from tasks.training.loop.consolidation import Consolidation
from tasks.training.loop.interruption import Interruption
from tasks.training.loop.memory import peak_bytes, ran_out_of_memory
from tasks.training.loop.objectives import Objective
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.loop.schedule import learning_rate_at
from tasks.training.loop.validation import Validation

if TYPE_CHECKING:
    import torch

_RANDOM_CPU, _RANDOM_GPU = "random.cpu", "random.cuda"


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimizer steps that were taken.
        tokens: tokens that were trained on, padding not counted.
        seconds: time in the loop, of all its processes so far.
        most_tokens: the largest micro-batch, in tokens with padding; 0: no limit.
        steps: what was said of each step.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    most_tokens: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Loop:
    """A run of optimizer steps and what takes part in it.

    Attributes:
        objective: what is minimised.
        schedule: the rows of every step.
        optimizer: of the trainee's parameters.
        checkpoints: the folder for them; None: none are kept.
        interruption: set when somebody asks to stop.
        validation: measures the loss on rows that are held out.
        consolidation: keeps the weights near their start.
    """

    objective: Objective
    schedule: list[list[int]]
    optimizer: MasterOptimizer
    checkpoints: Path | None
    interruption: Interruption
    validation: Validation | None = None
    consolidation: Consolidation | None = None

    def __post_init__(self) -> None:
        self._trainee = self.objective.trainee
        self._training = self._trainee.training
        self._lengths = [len(example) for example in self.objective.examples]
        self.progress = Progress(most_tokens=self._training.micro_batch_tokens)
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Go back to the newest sound checkpoint, if there is one, and say again what its steps said.

        Raises:
            TrainingError: the weights in memory are not, bit by bit, those that were saved.
        """
        checkpoint = newest_checkpoint(self.checkpoints) if self.checkpoints is not None else None
        if checkpoint is None:
            return
        self.optimizer.load(checkpoint.tensors, checkpoint.facts)
        digest = digest_of_tensors(self.optimizer.named_masters())
        if digest != checkpoint.facts["digest"]:
            raise TrainingError(
                f"the checkpoint of step {checkpoint.step} has other weights than were saved ({digest[:12]} instead of "
                f"{checkpoint.facts['digest'][:12]}); delete {self.checkpoints} to start anew"
            )
        self._set_random_state(checkpoint.tensors)
        if self.validation is not None:
            self.validation.load(checkpoint.tensors, checkpoint.facts)
        self.progress = Progress(checkpoint.step, steps=checkpoint.steps, **checkpoint.facts["progress"])
        say("resumed", step=checkpoint.step, digest=digest)
        for step in checkpoint.steps:
            say("step", **step)

    def run(self) -> None:
        """Take the steps that are left.

        Raises:
            TrainingError: the loss or the gradient is not a number.
            TrainingStopped: somebody asked to stop; the state is saved.
            MemoryError: a single row does not fit.
        """
        self._trainee.transformer.train()
        for number in range(self.progress.step, len(self.schedule)):
            self._random_at_start = self._random_state()
            started = time.monotonic()
            loss = self._gradients(number)
            self.optimizer.take_gradients()
            if self.consolidation is not None:
                self.consolidation.add_gradients(self.optimizer)
            rate = self._rate(number)
            norm = self.optimizer.step(rate)
            self.progress.step = number + 1
            self.progress.tokens += sum(self._lengths[row] for row in self.schedule[number])
            self.progress.seconds += time.monotonic() - started
            self._say_step(loss, norm, rate)
            enough = self.validation is not None and self.validation.after_step(number + 1)
            if enough:
                break
            if time.monotonic() - self._saved_at >= self._training.checkpoint_seconds:
                self._random_at_start = self._random_state()
                self._save()
        if self.validation is not None:
            self.validation.restore_best()

    def _rate(self, number: int) -> float:
        training = self._training
        return learning_rate_at(
            number, len(self.schedule), training.peak_learning_rate, training.warmup_share, training.schedule
        )

    def _gradients(self, number: int) -> float:
        """Add up the gradients of a step, in smaller parts if the memory runs out, and return its loss."""
        while True:
            try:
                return self._summed_gradients(number)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                self._take_smaller_parts(number, error)

    def _summed_gradients(self, number: int) -> float:
        rows = self.schedule[number]
        divisor, total = self.objective.divisor(rows), 0.0
        for part in micro_batches(rows, self._lengths, self.progress.most_tokens):
            if self.interruption.requested:
                self._stop()
            loss = self.objective.loss_sum(part) / divisor
            total += loss.item()
            if not math.isfinite(total):
                raise TrainingError(f"the loss at step {number + 1} is {total}; lower training.learning_rate")
            self.optimizer.backward(loss)
        return total

    def _take_smaller_parts(self, number: int, error: Exception) -> None:
        """Halve the micro-batch and go back to the beginning of the step."""
        import torch

        self.optimizer.drop_gradients()
        self._set_random_state(self._random_at_start)
        rows, most = self.schedule[number], self.progress.most_tokens
        largest = max(len(part) * max(self._lengths[row] for row in part) for part in self._parts(number))
        if len(self._parts(number)) == len(rows):
            raise MemoryError(
                f"a single row of {max(self._lengths[row] for row in rows)} tokens does not fit"
            ) from error
        self.progress.most_tokens = max(1, largest // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say("smaller", step=number + 1, from_tokens=most or largest, to_tokens=self.progress.most_tokens)

    def _parts(self, number: int) -> list[list[int]]:
        return micro_batches(self.schedule[number], self._lengths, self.progress.most_tokens)

    def _say_step(self, loss: float, norm: float, rate: float) -> None:
        progress = self.progress
        facts = {
            "step": progress.step,
            "total_steps": len(self.schedule),
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens": progress.tokens,
            "tokens_per_second": progress.tokens / progress.seconds,
            "seconds": progress.seconds,
            "memory_bytes": peak_bytes(self._trainee.place.device),
        }
        progress.steps.append(facts)
        say("step", **facts)

    def _stop(self) -> None:
        self.optimizer.drop_gradients()
        saved = self._save()
        kept = f"; step {self.progress.step} is kept, and the same run goes on from there" if saved else ""
        raise TrainingStopped(f"the training was asked to stop{kept}")

    def _save(self) -> bool:
        if self.checkpoints is None:
            return False
        tensors, numbers = self.optimizer.state()
        best_tensors, best_facts = self.validation.state() if self.validation is not None else ({}, {})
        progress = {key: getattr(self.progress, key) for key in ("tokens", "seconds", "most_tokens")}
        facts = {
            **numbers,
            **best_facts,
            "progress": progress,
            "digest": digest_of_tensors(self.optimizer.named_masters()),
        }
        save_checkpoint(
            self.checkpoints,
            Checkpoint(
                self.progress.step, {**tensors, **best_tensors, **self._random_at_start}, facts, self.progress.steps
            ),
        )
        self._saved_at = time.monotonic()
        say("checkpoint", step=self.progress.step)
        return True

    def _random_state(self) -> "dict[str, torch.Tensor]":
        import torch

        state = {_RANDOM_CPU: torch.get_rng_state()}
        if self._trainee.place.device.type == "cuda":
            state[_RANDOM_GPU] = torch.cuda.get_rng_state(self._trainee.place.device)
        return state

    def _set_random_state(self, tensors: "dict[str, torch.Tensor]") -> None:
        import torch

        torch.set_rng_state(tensors[_RANDOM_CPU])
        if _RANDOM_GPU in tensors:
            torch.cuda.set_rng_state(tensors[_RANDOM_GPU], self._trainee.place.device)
