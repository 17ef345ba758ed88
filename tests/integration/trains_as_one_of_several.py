"""A process of the tests: trains order after order as one of several, which saves the start of so many interpreters."""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tasks.contracts import worker
from tasks.contracts.errors import TrainingError
from tasks.contracts.training_config import TrainingSection
from tasks.training import process
from tasks.training.distributed.joining import joined
from tasks.training.loop.interruption import Interruption
from tasks.training.loop.loop import Loop


def seconds_that_it_waits():
    """Return how long a process of this group waits for the others."""
    import torch
    from torch.distributed.distributed_c10d import _get_default_group

    return _get_default_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds()


if __name__ == "__main__":
    orders = json.loads(Path(sys.argv[1]).read_text())
    with joined() as group:
        Path(sys.argv[1]).with_name(f"timeout{group.rank}").write_text(str(seconds_that_it_waits()))
        plain = Loop._summed_gradients
        for order in orders:
            training = TrainingSection.model_validate(order["training"])
            overflows = set(order.get("overflows", ()))  # steps at which the other process runs out of memory, once

            def summed_gradients(self, number, overflows=overflows):
                if group.rank == 1 and number in overflows:
                    overflows.remove(number)
                    raise MemoryError
                return plain(self, number)

            Loop._summed_gradients = summed_gradients
            with Path(order["events"]).open("w", buffering=1) as events, suppress(TrainingError):
                worker._events[:] = [events] if group.is_main else []
                try:
                    process._train(order, replace(group, sharded=training.sharding == "fsdp"), Interruption())
                except TrainingError as error:
                    worker.say("error", message=str(error))
                    raise
