"""The training process: reads an order, trains, saves what was trained, and says each step as an event."""

import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.contracts.canaries import make_canaries
from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.vector_math import settle_vector_math
from tasks.contracts.worker import say, worker_main
from tasks.training.device import choose_device
from tasks.training.distributed.group import ALONE, Group
from tasks.training.distributed.joining import joined
from tasks.training.distributed.resuming import shared_order
from tasks.training.fast.runtime import prepare_runtime
from tasks.training.loop.batches import plan_steps
from tasks.training.loop.consolidation import Consolidation
from tasks.training.loop.examples import EncodedRows, Example, RowEncoder, encode_rows
from tasks.training.loop.interruption import Interruption, listening
from tasks.training.loop.loop import Loop
from tasks.training.loop.memory import peak_bytes
from tasks.training.loop.objectives import Objective, Supervised, make_objective
from tasks.training.loop.optimizer import MasterOptimizer
from tasks.training.loop.trainee import Place, Trainee
from tasks.training.loop.validation import Validation
from tasks.training.plan.plan import Plan, Planner, Work, shared_plan
from tasks.training.plan.rehearsal import Rehearsal
from tasks.training.plan.verdict import refuse_what_cannot_fit
from tasks.training.shape import longest_row_tokens, teacher_context_tokens


def run(order: dict[str, Any]) -> None:
    """Train as an order says; see `TrainingJob.order`.

    Raises:
        TrainingError: no row fits, the model's shape rules out what is configured, or the loss is not a number.
        TrainingStopped: somebody asked to stop; the same order goes on from there.
    """
    with listening() as interruption, joined() as group, tempfile.TemporaryDirectory() as folder:
        order = shared_order(group, order, Path(folder))
        training = TrainingSection.model_validate(order["training"])
        _train(order, replace(group, sharded=training.sharding == "fsdp"), interruption)
    say("end")


def _train(order: dict[str, Any], group: Group, interruption: Interruption) -> None:
    import torch

    settle_vector_math()
    training = TrainingSection.model_validate(order["training"])
    place = Place(*choose_device(training))
    check_group(training, group, str(place.dtype))
    planned = plan_run(order, training, place, group)
    plan, rows = planned.plan, planned.rows
    say("plan", **plan.to_json())
    refuse_what_cannot_fit(plan.to_json(), training.method)
    torch.manual_seed(training.seed)
    trainee = Trainee(Path(order["base"]), training, place, group)
    loop = prepare_loop(trainee, rows, order, interruption)
    chosen = keep_choice(order["checkpoints"], plan.micro_batch_tokens) if group.is_main else 0
    loop.progress.most_tokens = int(group.sum([chosen])[0])
    _say_start(planned, loop)
    loop.resume()
    loop.run()
    trained = loop.optimizer.whole_weights() if group.sharded else None
    if group.is_main:
        trainee.save(Path(order["out"]), order["base_name"], trained)
    group.wait()
    measured = peak_bytes(place.device)
    say("measured", bytes=measured, seconds=loop.progress.seconds, ratio=plan.memory.total / measured)


def check_group(training: TrainingSection, group: Group, dtype: str) -> None:
    """Refuse what the number of processes rules out.

    Raises:
        TrainingError: steps with fewer rows than processes, one process to shard over, or fp16 weights to shard.
    """
    if group.size > training.batch_rows:
        raise TrainingError(
            f"training.batch_rows is {training.batch_rows}, and {group.size} processes train; expected a row a process "
            "at least"
        )
    if training.sharding == "fsdp" and group.size == 1:
        raise TrainingError("training.sharding is fsdp, and one process trains; expected several, or none")
    if group.sharded and dtype == "torch.float16":
        raise TrainingError(
            "training.sharding is fsdp, and training.precision auto is fp16 on this device; expected bf16 or fp32"
        )


@dataclass(frozen=True)
class Rows:
    """The rows of a run: to train on, to measure the loss on, and general ones to replay."""

    own: list[Example]
    held_out: list[Example]
    replayed: list[Example]


@dataclass(frozen=True)
class PlannedRun:
    """A training's rows as token ids, and what it will need; no weight is loaded.

    Attributes:
        encoded: the data set's rows, and how many of them were too long.
        replayed: the same of rows that are replayed.
        longest_row_tokens: what is too long has more.
        rows: what takes part.
        planner: makes plans of other settings too.
        plan: of these settings.
    """

    encoded: EncodedRows
    replayed: EncodedRows
    longest_row_tokens: int
    rows: Rows
    planner: Planner
    plan: Plan

    @property
    def work(self) -> Work:
        """What the steps are made of."""
        return Work([*self.rows.own, *self.rows.replayed], len(self.rows.own))


def plan_run(
    order: dict[str, Any],
    training: TrainingSection,
    place: Place,
    group: Group = ALONE,
    planned_for: Group | None = None,
) -> PlannedRun:
    """Encode the rows of an order and plan its training; of several processes the main one plans for all.

    Args:
        order: what is trained; see `TrainingJob.order`.
        training: its settings.
        place: where it would compute.
        group: the processes that are here.
        planned_for: those that would train, where they are not here.

    Raises:
        TrainingError: no row fits, or the model's shape rules out what is configured.
    """
    base, speeds = Path(order["base"]), order.get("speeds")
    teacher = order["teacher"] if training.objective == "distillation" else ""
    room = teacher_context_tokens(Path(teacher), base, training) if teacher else training.max_length_tokens
    rehearsal = Rehearsal(base, training, place, teacher)
    encoder = RowEncoder(rehearsal.trainee.tokenizer, order["system_prompt"])
    longest = min(room, longest_row_tokens(rehearsal.config, training))
    own, held_out = hold_out(encode_rows(Path(order["rows"]), encoder, training, longest), training)
    planted = [encoder.encode({"messages": each.messages}) for each in make_canaries(training.canaries, training.seed)]
    own = replace(own, examples=[*own.examples, *planted])
    replayed = EncodedRows([])
    if order["replay"]:
        replayed = encode_rows(Path(order["replay"]), encoder, training, longest, "training.replay")
    planner = Planner(base, place, Path(speeds) if speeds else None, teacher, planned_for or group)
    work = Work([*own.examples, *replayed.examples], len(own.examples))
    plan = shared_plan(group, planner.plan(training, work, rehearsal) if group.is_main else None)
    rows = Rows(own.examples, held_out, replayed.examples)
    return PlannedRun(own, replayed, longest, rows, planner, plan)


def keep_choice(checkpoints: str, tokens: int) -> int:
    """Return the micro-batch that the first process of this training chose, or keep this one as it.

    What is free differs from one start to the next, and a resumed training has to go on with the same numbers.
    """
    if not checkpoints:
        return tokens
    kept = Path(checkpoints) / "micro_batch_tokens.json"
    if kept.is_file():
        return int(json.loads(kept.read_text(encoding="utf-8")))
    kept.parent.mkdir(parents=True, exist_ok=True)
    working = kept.with_suffix(f".{os.getpid()}")
    working.write_text(json.dumps(tokens), encoding="utf-8")
    working.rename(kept)
    return tokens


def hold_out(encoded: EncodedRows, training: TrainingSection) -> tuple[EncodedRows, list[Example]]:
    """Take the validation rows away from the training rows: evenly spread ones, as the rows' order is random.

    Raises:
        TrainingError: fewer rows than that would be left to train on.
    """
    count, rows = training.validation_rows, encoded.examples
    if not count:
        return encoded, []
    if count * 2 > len(rows):
        raise TrainingError(
            f"training.validation_rows is {count}, and there are {len(rows)} training rows; expected at most "
            f"{len(rows) // 2}"
        )
    chosen = {number * len(rows) // count for number in range(count)}
    kept = [example for number, example in enumerate(rows) if number not in chosen]
    return EncodedRows(kept, encoded.left_out, encoded.cut_off), [rows[number] for number in sorted(chosen)]


def prepare_loop(trainee: Trainee, rows: Rows, order: dict[str, Any], interruption: Interruption) -> Loop:
    """Put together what takes part in a run; what needs the model as it starts is computed here."""
    training = trainee.training
    trainee.transformer.eval()  # what is computed here is of the model as it serves, without dropout
    teacher = load_teacher(order["teacher"], trainee) if training.objective == "distillation" else None
    examples = [*rows.own, *rows.replayed]
    objective = make_objective(trainee, examples, teacher)
    objective.prepare()
    consolidation = None
    if training.ewc_weight:
        replayed = range(len(rows.own), len(examples))
        consolidation = Consolidation(Supervised(trainee, examples), replayed, training.ewc_weight)
    optimizer = MasterOptimizer(trainee.trained_parameters(), training, trainee.place, trainee.layout)
    schedule = plan_steps([len(example) for example in examples], training, len(rows.own))
    return Loop(
        objective=objective,
        schedule=schedule,
        optimizer=optimizer,
        checkpoints=Path(order["checkpoints"]) if order["checkpoints"] else None,
        interruption=interruption,
        validation=_validation(make_objective(trainee, rows.held_out, teacher), optimizer, schedule),
        consolidation=consolidation,
    )


def _validation(objective: Objective, optimizer: MasterOptimizer, schedule: list[list[int]]) -> Validation | None:
    if not objective.examples:
        return None
    objective.prepare()
    training = objective.trainee.training
    every = round(len(schedule) / training.epochs / training.validations)
    return Validation(objective, optimizer, every, len(schedule))


def load_teacher(teacher: str, trainee: Trainee) -> Any:
    """Load the teacher of a distillation, frozen, in the trainee's precision."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        teacher, dtype=trainee.place.dtype, trust_remote_code=False, use_safetensors=True
    )
    return model.to(trainee.place.device).eval().requires_grad_(False)


def _say_start(planned: PlannedRun, loop: Loop) -> None:
    trainee = loop.objective.trainee
    say(
        "start",
        total_steps=len(loop.schedule),
        micro_batch_tokens=loop.largest_micro_batch(),
        rows=len(planned.encoded.examples),
        rows_too_long=planned.encoded.left_out,
        rows_cut_off=planned.encoded.cut_off,
        validation_rows=len(planned.rows.held_out),
        replay={
            "rows": len(planned.replayed.examples),
            "rows_too_long": planned.replayed.left_out,
            "rows_cut_off": planned.replayed.cut_off,
        },
        longest_row_tokens=planned.longest_row_tokens,
        longest_tokens=max(len(example) for example in planned.work.examples),
        device=str(trainee.place.device),
        precision=str(trainee.place.dtype).removeprefix("torch."),
        trainable_parameters=sum(parameter.numel() for parameter in trainee.trained_parameters().values()),
    )


if __name__ == "__main__":
    prepare_runtime()
    worker_main(run)
