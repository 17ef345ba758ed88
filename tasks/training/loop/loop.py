"""The optimizer steps: each whole or not at all, saved now and then, and stopped for good or bad reasons."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.errors import TrainingError, TrainingStopped
from tasks.contracts.worker import say
from tasks.training.distributed.resuming import shared_checkpoint
from tasks.training.distributed.shares import passes, shares_of
from tasks.training.loop.batches import micro_batches
from tasks.training.loop.checkpoints import (
    Checkpoint,
    asked_tokens,
    digest_of_tensors,
    newest_sound,
    try_to_save,
)
from tasks.training.loop.consolidation import Consolidation
from tasks.training.loop.ground import check_ground, ground_of
from tasks.training.loop.interruption import Interruption, StopRequested
from tasks.training.loop.memory import gpu_utilisation, peak_bytes, ran_out_of_memory
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
        self._group = self._trainee.group
        self._training, self._device = self._trainee.training, self._trainee.place.device
        self._lengths = [len(example) for example in self.objective.examples]
        self.progress = Progress(most_tokens=self._training.micro_batch_tokens)
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Go back to the newest sound checkpoint, if there is one, and say again what was told until then.

        Checkpoints that cannot be used are set aside and said.

        Raises:
            TrainingError: the newest is of another ground, or was resumed with other weights than were saved.
        """
        if self.checkpoints is None:
            return
        found, asked = None, 0
        if self._group.is_main:
            found, asked = newest_sound(self.checkpoints, self._misfit), asked_tokens(self.checkpoints)
        checkpoint = shared_checkpoint(self._group, found, self.optimizer.own)
        if checkpoint is not None:
            self._take_over(checkpoint)
        tokens, largest = int(self._group.sum([asked])[0]), self.largest_micro_batch()
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
                if self._checkpoint_is_due():
                    self._save()
            self.interruption.check_together(self._group)
        except StopRequested:
            self._stop()
        if self.validation is not None:
            self.validation.restore_best()

    def _checkpoint_is_due(self) -> bool:
        """Say whether to save now; the main process's clock decides for all."""
        due = time.monotonic() - self._saved_at >= self._training.checkpoint_seconds
        return bool(self._group.sum([due and self._group.is_main])[0])

    def _take_step(self, number: int) -> None:
        started = time.monotonic()
        self._group.reseed(self._training.seed, number)
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
        progress.tokens += sum(self.objective.examples[row].tokens for row in self.schedule[number])
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
        """Add up the gradients of a step, in smaller parts if the memory runs out, and return its loss.

        One sum tells all processes the loss, and whether one of them was asked to stop or ran out of memory.
        """
        while True:
            own, stops, overflows = 0.0, False, False
            try:
                own = self._summed_gradients(number)
            except StopRequested:
                stops = True
            except (MemoryError, RuntimeError) as error:
                # Sharded processes call the model in step: one that fails half-way cannot begin anew with the others.
                if not ran_out_of_memory(error) or self._group.sharded:
                    raise
                overflows = True
            loss, any_stops, any_overflows = self._group.sum([own, stops, overflows])
            if any_stops:
                raise StopRequested
            if any_overflows:
                self._take_smaller_parts(number)  # out here the error's frames hold no memory any more
            elif not math.isfinite(loss):
                raise TrainingError(f"the loss at step {number + 1} is {loss}; lower training.learning_rate")
            else:
                return loss

    def _summed_gradients(self, number: int) -> float:
        """Add up the gradients of this process's rows; leave off at the first sign that the step will not be taken."""
        divisor, total = self.objective.divisor(self.schedule[number]), 0.0
        in_step = self._group.sharded  # who leaves off then leaves the others waiting
        for part, weight in passes(self._shares(number), self._lengths, self._group):
            if not in_step:
                self.interruption.check()
            self.optimizer.add_up()
            loss = self.objective.loss_sum(part, measured=weight > 0) * weight / divisor
            total += loss.item()
            if not math.isfinite(total) and not in_step:
                break
            self.optimizer.backward(loss)
        if self._group.size > 1:
            self.interruption.check()
        return total

    def _take_smaller_parts(self, number: int) -> None:
        """Halve the micro-batch and go back to the beginning of the step, as all processes do if one has to.

        Raises:
            TrainingError: every row is alone already.
        """
        import torch

        self.objective.measures()  # of the parts that did fit, which come again
        self.optimizer.drop_gradients()
        set_random_state(self._random_at_start, self._device)
        self._group.reseed(self._training.seed, number)
        rows, largest = self.schedule[number], self._largest_part(number)
        if self.progress.most_tokens:  # a row that alone is longer stays as it is, however small the limit becomes
            largest = min(largest, self.progress.most_tokens)
        if len(self._parts(number)) == len(rows):
            raise TrainingError(
                f"the memory ran out on a single row of {max(self._lengths[row] for row in rows)} tokens; lower "
                "training.max_length_tokens, or set training.activation_checkpointing"
            )
        self.progress.most_tokens = max(1, largest // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.progress.tell("smaller", step=number + 1, from_tokens=largest, to_tokens=self.progress.most_tokens)

    def _shares(self, number: int) -> list[list[list[int]]]:
        """Return the micro-batches of a step by process."""
        shares = shares_of(self.schedule[number], self._lengths, self._group.size)
        return [micro_batches(share, self._lengths, self.progress.most_tokens) for share in shares]

    def _parts(self, number: int) -> list[list[int]]:
        return [part for share in self._shares(number) for part in share]

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
        digest = digest_of_tensors(self.optimizer.whole(self.optimizer.named_masters()))
        facts = {**numbers, **best_facts, "progress": self.progress.numbers(), "digest": digest}
        facts["ground"] = ground_of(self._trainee)
        checkpoint = Checkpoint(self.progress.step, tensors, facts, self.progress.told)
        saved = self._group.is_main and try_to_save(self.checkpoints, checkpoint)
        # The others wait for it: a process that ends before would make the launcher end the one that writes.
        return bool(self._group.sum([saved])[0])

    def _take_over(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; an error if the weights in memory are then not those that were saved, bit by bit."""
        facts, tensors = checkpoint.facts, checkpoint.tensors
        self.optimizer.load(tensors, facts)
        set_random_state(tensors, self._device)
        if self.validation is not None:
            self.validation.load(tensors, facts)
        self.progress = Progress(checkpoint.step, told=checkpoint.told, **facts["progress"])
        digest = digest_of_tensors(self.optimizer.whole(self.optimizer.named_masters()))
        if self._group.is_main and digest != facts["digest"]:
            raise TrainingError(
                f"step {checkpoint.step} was resumed with other weights than were saved ({digest[:12]} instead of "
                f"{facts['digest'][:12]}); delete {self.checkpoints} to start anew"
            )
        say("resumed", step=checkpoint.step, total_steps=len(self.schedule), digest=digest)
        for event in checkpoint.told:
            say(**event, again=True)

    def _misfit(self, checkpoint: Checkpoint) -> str:
        """Say why a checkpoint cannot be of this training; the empty string if it may be.

        Raises:
            TrainingError: it is of this training, on another device or in another precision.
        """
        ground = ground_of(self._trainee)
        expected = {"digest": (), "scaler": (), "progress": tuple(Progress().numbers()), "ground": tuple(ground)}
        if self.validation is not None:
            expected["validation"] = tuple(self.validation.numbers())
        given = {**checkpoint.tensors, **checkpoint.facts}
        if set(given.get("ground", ())) == set(ground):
            check_ground(checkpoint, ground, self.checkpoints)
        for name in (*expected, *random_state(self._device)):
            if name not in given:
                return f"its state lacks {name}"
        for name, keys in expected.items():
            if keys and set(given[name]) != set(keys):
                return f"its state has other numbers of {name}"
        return self.optimizer.misfit(checkpoint.tensors, checkpoint.facts["digest"])
