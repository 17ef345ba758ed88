"""What a training needs and whether that is there; and how many tokens pass through the model at a time."""

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.training_config import TrainingSection
from tasks.training.distributed.group import ALONE, Group
from tasks.training.fast.rows import TOKENS_MULTIPLE, attention_scores, packed_tokens
from tasks.training.fast.runtime import KEPT_PRODUCTS
from tasks.training.loop.batches import micro_batches, plan_steps
from tasks.training.loop.examples import Example
from tasks.training.loop.memory import process_bytes, takes_eager_attention
from tasks.training.plan.free import free_bytes
from tasks.training.plan.memory import PRODUCT_BYTES, Memory, memory_of, weight_file_bytes
from tasks.training.plan.rehearsal import Rehearsal, Rehearsed
from tasks.training.plan.speed import COSTS, flops_per_second
from tasks.training.plan.verdict import may_fit

if TYPE_CHECKING:
    from tasks.training.loop.trainee import Place

MOST_TOKENS = {"cpu": 2_048, "cuda": 16_384}
"""Tokens at a time beyond which nothing is gained: a guess for both, to be measured (DECISIONS.md)."""
LEAST_TOKENS = 128
FREE_SHARE = 0.8
"""Of what is free, what a choice of ours may take: others use the machine too, and an estimate can be 15 % off."""


@dataclass(frozen=True)
class Work:
    """The rows of a training and their order.

    Attributes:
        examples: the data set's rows, then those that may be replayed.
        own_rows: how many of them are the data set's.
    """

    examples: Sequence[Example]
    own_rows: int

    def parts(self, training: TrainingSection) -> list[tuple[list[Example], bool]]:
        """Return the micro-batches of all steps, each with whether it is one of several of its step."""
        lengths = [len(example) for example in self.examples]
        parts = []
        for rows in plan_steps(lengths, training, self.own_rows):
            divided = micro_batches(rows, lengths, training.micro_batch_tokens)
            parts += [([self.examples[row] for row in part], len(divided) > 1) for part in divided]
        return parts


@dataclass(frozen=True)
class Plan:
    """An estimate.

    Attributes:
        memory: bytes by part.
        free_bytes: what can be taken; on a CPU beside what the process has already.
        seconds: of all optimizer steps.
        flops_per_second: the device's speed at matrix products of the model's shapes.
        micro_batch_tokens: tokens at a time, padding included; 0: every step at once.
        largest_rows: rows of the largest micro-batch.
        largest_tokens: tokens of its longest row.
        total_tokens: of all rows in all steps, padding included.
        trained_parameters: numbers that are trained.
    """

    memory: Memory
    free_bytes: int
    seconds: float
    flops_per_second: float
    micro_batch_tokens: int
    largest_rows: int
    largest_tokens: int
    total_tokens: int
    trained_parameters: int

    @property
    def needed_bytes(self) -> int:
        """What is still to be taken."""
        return self.memory.total - self.memory.process

    @property
    def fits(self) -> bool:
        """Whether what is needed is free."""
        return self.needed_bytes <= self.free_bytes

    @property
    def may_fit(self) -> bool:
        """Whether what is needed may be free after all, as an estimate can be too high."""
        return may_fit(self.needed_bytes, self.free_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return facts for an event, a report or a script."""
        return {
            **{key: value for key, value in asdict(self).items() if key != "memory"},
            "memory": self.memory.parts,
            "loading_bytes": self.memory.loading,
            "total_bytes": self.memory.total,
            "needed_bytes": self.needed_bytes,
            "fits": self.fits,
            "may_fit": self.may_fit,
        }


class Planner:
    """Plans trainings of one base on one device: of the settings as they are, and as they could be."""

    def __init__(
        self, base: Path, place: "Place", speeds: Path | None = None, teacher: str = "", group: Group = ALONE
    ) -> None:
        """Look at what is free, and at the process as it is.

        Args:
            base: the base model.
            place: where it would compute.
            speeds: the folder that keeps measured speeds.
            teacher: the teacher of a distillation.
            group: the processes that train; what is planned is one of them.
        """
        self._group = group
        self._base, self._place, self._speeds, self._teacher = base, place, speeds, teacher
        self._on_cpu = place.device.type == "cpu"
        self._process = process_bytes("VmRSS") if self._on_cpu else 0
        self._free = free_bytes(place.device)
        if self._on_cpu:  # the processes of a machine share it
            self._free //= group.size // group.nodes

    def plan(self, training: TrainingSection, work: Work, rehearsal: Rehearsal) -> Plan:
        """Plan one training.

        With training.micro_batch_tokens 0 the largest value is taken, of halves of `MOST_TOKENS`, that needs no more
        than `FREE_SHARE` of what is free; if none does, the smallest. The rows of a step are the same with any.
        """
        values = [training.micro_batch_tokens] if training.micro_batch_tokens else self._values()
        speed = self._speed(rehearsal)
        for tokens in values:
            plan = self._of(training.model_copy(update={"micro_batch_tokens": tokens}), work, rehearsal, speed)
            if plan.needed_bytes <= FREE_SHARE * self._free:
                return plan
        return plan

    def _values(self) -> list[int]:
        values = [MOST_TOKENS[self._place.device.type]]
        while values[-1] > LEAST_TOKENS:
            values.append(values[-1] // 2)
        return [*values, 1]

    def _of(self, training: TrainingSection, work: Work, rehearsal: Rehearsal, speed: float) -> Plan:
        parts = work.parts(training)
        widest = max(parts, key=lambda part: (_padded(part[0]), part[1]))
        rehearsed = rehearsal.step(*widest)
        expected = _Expected(rehearsed, widest[0], rehearsal.config, self._place.device.type)
        others = [max(parts, key=lambda part: expected.bytes_of(part[0]))]
        if rehearsal.is_fast:  # rows that begin alike are shorter there, and their attention may be larger
            others += [max(parts, key=lambda part: size(part[0])) for size in (packed_tokens, attention_scores)]
        seen = [widest]
        for other in others:
            if other not in seen:
                seen.append(other)
                again = rehearsal.step(*other)
                if again.peak_bytes > rehearsed.peak_bytes:
                    widest, rehearsed = other, again
        shards = self._group.size if self._group.sharded else 1
        return Plan(
            memory=memory_of(
                rehearsed,
                training,
                self._process,
                self._copied_files(training, rehearsal),
                self._code_of_products(rehearsed, [part for part, _ in parts], rehearsal.is_fast),
                shards,
            ),
            free_bytes=self._free,
            seconds=sum(expected.seconds_of(part, speed) for part, _ in parts) / self._times_as_fast,
            flops_per_second=speed,
            micro_batch_tokens=training.micro_batch_tokens,
            largest_rows=len(widest[0]),
            largest_tokens=max(len(example) for example in widest[0]),
            total_tokens=sum(_padded(part) for part, _ in parts),
            trained_parameters=rehearsed.trained_parameters,
        )

    @property
    def _times_as_fast(self) -> int:
        """How often the device whose speed was measured is there: the processes of a CPU share its cores, so only
        cores count that the measurement left idle."""
        nodes, here = self._group.nodes, self._group.size // self._group.nodes
        if self._on_cpu:
            import torch

            here = max(1, min(here, len(os.sched_getaffinity(0)) // torch.get_num_threads()))
        return nodes * here

    def _copied_files(self, training: TrainingSection, rehearsal: Rehearsal) -> int:
        """Weights in the file's own precision stay where they are mapped; the fast way and other precisions copy."""
        as_it_is = rehearsal.file_dtype == self._place.dtype and training.method != "qlora" and not rehearsal.is_fast
        return 0 if as_it_is else weight_file_bytes(self._base)

    def _code_of_products(self, rehearsed: Rehearsed, parts: list[list[Example]], is_fast: bool) -> int:
        """Return the bytes of code that oneDNN keeps beside that of the rehearsed micro-batch; fp32 goes elsewhere."""
        if not self._on_cpu or self._place.dtype.itemsize != 2:
            return 0
        if is_fast:
            shapes: set[tuple[int, ...]] = {(-(-packed_tokens(part) // TOKENS_MULTIPLE),) for part in parts}
        else:
            shapes = {(len(part), max(map(len, part))) for part in parts}
        made = min(KEPT_PRODUCTS, rehearsed.products * len(shapes))
        return PRODUCT_BYTES * max(0, made - rehearsed.products)

    def _speed(self, rehearsal: Rehearsal) -> float:
        place = (self._place.device, self._place.dtype)
        return flops_per_second(rehearsal.largest_layer, 1_024, place, self._speeds)

    def plan_other(self, training: TrainingSection, work: Work, place: "Place") -> Plan:
        """Plan a training of the same base with other settings, against what this planner found free.

        Raises:
            TrainingError: the model's shape rules out what is configured.
        """
        planner = copy(self)  # what was rehearsed meanwhile is in this process, and not in one that trains
        planner._place = place
        return planner.plan(training, work, Rehearsal(self._base, training, place, self._teacher))


def shared_plan(group: Group, plan: Plan | None) -> Plan:
    """Return the main process's plan; what others pass is ignored."""
    facts = group.share_facts(asdict(plan) if plan is not None else None)
    return Plan(**{**facts, "memory": Memory(**facts["memory"])})


class _Expected:
    """From one rehearsed micro-batch to others of the same training: each kind grows with its own quantity."""

    def __init__(self, rehearsed: Rehearsed, batch: Sequence[Example], config: Any, device_type: str) -> None:
        self._rehearsed, self._batch = rehearsed, batch
        self._config, self._device_type = config, device_type

    def bytes_of(self, batch: Sequence[Example]) -> float:
        kinds = self._rehearsed.at_peak
        passing = kinds.get("activations", 0) * _padded(batch) / _padded(self._batch)
        passing += kinds.get("logits", 0) * _answers(batch) / max(1, _answers(self._batch))
        if takes_eager_attention(self._device_type, self._config, batch):
            passing += 8 * self._config.num_hidden_layers * self._config.num_attention_heads * _squares(batch)
        return passing

    def seconds_of(self, batch: Sequence[Example], speed: float) -> float:
        share = _padded(batch) / _padded(self._batch)
        costs, rehearsed = COSTS[self._device_type], self._rehearsed
        return costs.seconds(self._flops_of(batch), share * rehearsed.moved_bytes, rehearsed.calls, speed)

    def _flops_of(self, batch: Sequence[Example]) -> float:
        kinds = dict(self._rehearsed.flops)
        attention = kinds.pop("attention", 0) * _squares(batch) / _squares(self._batch)
        logits = kinds.pop("logits", 0) * _answers(batch) / max(1, _answers(self._batch))
        return attention + logits + sum(kinds.values()) * _padded(batch) / _padded(self._batch)


def _padded(batch: Sequence[Example]) -> int:
    return len(batch) * max(len(example) for example in batch)


def _squares(batch: Sequence[Example]) -> int:
    return len(batch) * max(len(example) for example in batch) ** 2


def _answers(batch: Sequence[Example]) -> int:
    return sum(len(example.answer_ids) + len(example.rejected_ids) for example in batch)
