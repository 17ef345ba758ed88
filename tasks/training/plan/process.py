"""The planning process: reads the order of a training and says what it would need; no weight is loaded."""

from typing import Any

from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import say, worker_main
from tasks.training.device import choose_device
from tasks.training.distributed.group import Group
from tasks.training.distributed.launch import machines_of
from tasks.training.loop.trainee import Place
from tasks.training.plan.advice import advise
from tasks.training.process import check_group, plan_run


def run(order: dict[str, Any]) -> None:
    """Plan as an order says; see `TrainingJob.order`.

    Raises:
        TrainingError: no row fits, or the model's shape or the number of processes rules out what is configured.
    """
    training = TrainingSection.model_validate(order["training"])
    place = Place(*choose_device(training))
    machines = machines_of(order)
    size = machines.processes * machines.nodes
    group = Group(size=size, nodes=machines.nodes, sharded=training.sharding == "fsdp")
    check_group(training, group, str(place.dtype))
    planned = plan_run(order, training, place, planned_for=group)
    advice = [] if planned.plan.fits else advise(planned.planner, training, planned.work, planned.plan)
    say(
        "plan",
        **planned.plan.to_json(),
        device=str(place.device),
        precision=str(place.dtype).removeprefix("torch."),
        rows=len(planned.rows.own),
        rows_too_long=planned.encoded.left_out,
        rows_cut_off=planned.encoded.cut_off,
        advice=[each.to_json() for each in advice],
    )


if __name__ == "__main__":
    worker_main(run)
