"""The optimizer steps: each whole or not at all, saved now and then, and stopped for good or bad reasons."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.worker import say
from tasks.training.loop.batches import micro_batches
from tasks.training.loop.checkpoints import (
    Checkpoint,
    DamagedCheckpoint,
    UnsavedCheckpoint,
    asked_tokens,
    checkpoints_in,
    digest_of_tensors,
    read_checkpoint,
    remove_unfinished,
    save_checkpoint,
    set_aside,
)
from tasks.training.loop.consolidation import Consolidation
from tasks.training.loop.interruption import Interruption, StopRequested
from tasks.training.loop.memory import (
    gpu_utilisation,
    peak_bytes,
    ran_out_of_memory,
)
from tasks.training.loop.objectives import Objective
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.loop.progress import Progress
from tasks.training.loop.random_state import random_state, set_random_state
from tasks.training.loop.schedule import learning_rate_at
from tasks.training.loop.validation import Validation


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
        self._training, self._device = self._trainee.training, self._trainee.place.device
        self._lengths = [len(example) for example in self.objective.examples]
        self.progress = Progress(most_tokens=self._training.micro_batch_tokens)
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Go back to the newest sound checkpoint, if there is one, and say again what was told until then.

        Checkpoints that cannot be used are set aside and said.

        Raises:
            TrainingError: the weights in memory are not, bit by bit, those that were saved.
        """
        if self.checkpoints is None:
            return
        remove_unfinished(self.checkpoints)
        for path in checkpoints_in(self.checkpoints):
            try:
                self._take_over(read_checkpoint(path))
                break
            except DamagedCheckpoint as damage:
                set_aside(path, damage)
        tokens, largest = asked_tokens(self.checkpoints), self.largest_micro_batch()
        if 0 < tokens < largest:
            self.progress.most_tokens = tokens
            self.progress.tell("smaller", step=self.progress.step + 1, from_tokens=largest, to_tokens=tokens)

    def largest_micro_batch(self) -> int:
        """Return the tokens, with padding, of the largest micro-batch of the whole run."""
        return max(self._largest_part(number) for number in range(len(self.schedule)))

    def run(self) -> None:
        """Take the steps that are left.

        Raises:
            TrainingError: the loss or the gradient is not a number, or a single row does not fit into the memory.
            TrainingStopped: somebody asked to stop; the state is saved.
        """
        self.interruption.defer()
        self._trainee.transformer.train()
        self._random_at_start = random_state(self._device)
        try:
            self._validate()  # a stop may have come between a step and its validation
            while self.progress.step < len(self.schedule) and not (self.validation and self.validation.is_enough):
                self._take_step(self.progress.step)
                self._validate()
                if time.monotonic() - self._saved_at >= self._training.checkpoint_seconds:
                    self._save()
            self.interruption.check()
        except StopRequested:
            self._stop()
        if self.validation is not None:
            self.validation.restore_best()

    def _take_step(self, number: int) -> None:
        started = time.monotonic()
        loss = self._gradients(number)
        self.optimizer.take_gradients()
        measures = self.objective.measures()
        if self.consolidation is not None:
            measures["ewc_penalty"] = self.consolidation.penalty(self.optimizer)
            self.consolidation.add_gradients(self.optimizer)
        rate = self._rate(number)
        norm = self.optimizer.step(rate)
        progress = self.progress
        progress.step = number + 1
        self._random_at_start = random_state(self._device)
        progress.tokens += sum(self._lengths[row] for row in self.schedule[number])
        progress.skipped += not math.isfinite(norm)
        progress.seconds += time.monotonic() - started
        progress.tell(
            "step",
            step=progress.step,
            total_steps=len(self.schedule),
            loss=loss,
            gradient_norm=norm if math.isfinite(norm) else None,
            learning_rate=rate,
            tokens=progress.tokens,
            tokens_per_second=progress.tokens / progress.seconds,
            seconds=progress.seconds,
            micro_batch_tokens=self._largest_part(number),
            skipped_steps=progress.skipped,
            memory_bytes=peak_bytes(self._device),
            gpu_utilisation=gpu_utilisation(self._device),
            **measures,
        )

    def _validate(self) -> None:
        if self.validation is None:
            return
        self.validation.after_step(self.progress.step, self.interruption, self.progress.tell)

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
            self._take_smaller_parts(number)  # out here the error's frames hold no memory any more

    def _summed_gradients(self, number: int) -> float:
        rows = self.schedule[number]
        divisor, total = self.objective.divisor(rows), 0.0
        for part in self._parts(number):
            self.interruption.check()
            loss = self.objective.loss_sum(part) / divisor
            total += loss.item()
            if not math.isfinite(total):
                raise TrainingError(f"the loss at step {number + 1} is {total}; lower training.learning_rate")
            self.optimizer.backward(loss)
        return total

    def _take_smaller_parts(self, number: int) -> None:
        """Halve the micro-batch and go back to the beginning of the step.

        Raises:
            TrainingError: every row is alone already.
        """
        import torch

        self.objective.measures()  # of the parts that did fit, which come again
        self.optimizer.drop_gradients()
        set_random_state(self._random_at_start, self._device)
        rows, largest = self.schedule[number], self._largest_part(number)
        if len(self._parts(number)) == len(rows):
            raise TrainingError(
                f"the memory ran out on a single row of {max(self._lengths[row] for row in rows)} tokens; lower "
                "training.max_length_tokens, or set training.activation_checkpointing"
            )
        self.progress.most_tokens = max(1, largest // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.progress.tell("smaller", step=number + 1, from_tokens=largest, to_tokens=self.progress.most_tokens)

    def _parts(self, number: int) -> list[list[int]]:
        return micro_batches(self.schedule[number], self._lengths, self.progress.most_tokens)

    def _largest_part(self, number: int) -> int:
        return max(len(part) * max(self._lengths[row] for row in part) for part in self._parts(number))

    def _stop(self) -> None:
        self.optimizer.drop_gradients()
        if self._save():
            kept = f"step {self.progress.step} is kept, and the same run goes on from there"
        else:
            kept = "its state could not be saved, and the same run goes on from what was saved before, or begins anew"
        raise TrainingStopped(f"the training was asked to stop; {kept}")

    def _save(self) -> bool:
        """Save the state between two steps; a disk that is full costs the checkpoint and not the training."""
        if self.checkpoints is None:
            return False
        self._saved_at = time.monotonic()
        tensors, numbers = self.optimizer.state()
        best_tensors, best_facts = self.validation.state() if self.validation is not None else ({}, {})
        tensors |= best_tensors | self._random_at_start
        digest = digest_of_tensors(self.optimizer.named_masters())
        facts = {**numbers, **best_facts, "progress": self.progress.numbers(), "digest": digest}
        try:
            save_checkpoint(self.checkpoints, Checkpoint(self.progress.step, tensors, facts, self.progress.told))
        except UnsavedCheckpoint as error:
            say("checkpoint_failed", step=self.progress.step, reason=str(error))
            return False
        say("checkpoint", step=self.progress.step)
        return True

    def _take_over(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, changing nothing if it turns out not to be of this training.

        Raises:
            DamagedCheckpoint: it is not complete, or not of this training.
            TrainingError: the weights in memory are not, bit by bit, those that were saved.
        """
        facts, tensors = checkpoint.facts, checkpoint.tensors
        misfit = self._missing(checkpoint) or self.optimizer.misfit(tensors, facts["digest"])
        if misfit:
            raise DamagedCheckpoint(misfit)
        self.optimizer.load(tensors, facts)
        set_random_state(tensors, self._device)
        if self.validation is not None:
            self.validation.load(tensors, facts)
        self.progress = Progress(checkpoint.step, told=checkpoint.told, **facts["progress"])
        digest = digest_of_tensors(self.optimizer.named_masters())
        if digest != facts["digest"]:
            raise TrainingError(
                f"step {checkpoint.step} was resumed with other weights than were saved ({digest[:12]} instead of "
                f"{facts['digest'][:12]}); delete {self.checkpoints} to start anew"
            )
        say("resumed", step=checkpoint.step, total_steps=len(self.schedule), digest=digest)
        for event in checkpoint.told:
            say(**event, again=True)

    def _missing(self, checkpoint: Checkpoint) -> str:
        """Name what the facts and random states of a checkpoint lack; the empty string if nothing."""
        expected = {"digest": (), "scaler": (), "progress": tuple(Progress().numbers())}
        if self.validation is not None:
            expected["validation"] = tuple(self.validation.state()[1]["validation"])
        given = {**checkpoint.tensors, **checkpoint.facts}
        for name in (*expected, *random_state(self._device)):
            if name not in given:
                return f"its state lacks {name}"
        for name, keys in expected.items():
            if keys and set(given[name]) != set(keys):
                return f"its state has other numbers of {name}"
        return ""
