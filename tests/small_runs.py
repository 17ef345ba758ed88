"""Training runs on a tiny model inside the test's own process, which can be ended at any forward pass."""

import random

from tasks.contracts.training_config import TrainingSection
from tasks.training.device import choose_device
from tasks.training.loop.examples import Example
from tasks.training.loop.interruption import Interruption
from tasks.training.loop.trainee import Place, Trainee
from tasks.training.process import Rows, prepare_loop

SMALL = {
    "rank": 4,
    "virtual_tokens": 3,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "batch_rows": 4,
    "epochs": 3,
    "micro_batch_tokens": 40,
    "checkpoint_seconds": 0,
    "device": "cpu",
    "precision": "fp32",
}
"""Dropout, two to four micro-batches a step, a checkpoint after each step."""


class Killed(BaseException):
    """As a SIGKILL: nobody catches it."""


def unequal_rows(count, seed=3):
    """Return rows of unequal length, each with an answer that was not chosen."""
    draw = random.Random(seed)

    def ids(least, most):
        return tuple(draw.randrange(3, 300) for _ in range(draw.randint(least, most)))

    return [Example(ids(2, 24), ids(1, 12), ids(1, 12)) for _ in range(count)]


def small_run(base, checkpoints=None, interruption=None, rows=None, **settings):
    """Return a loop over twelve rows, or over other ones, with more held out for validation if settings ask for it."""
    import torch

    torch.set_num_threads(1)  # more only wait for each other on a model of this size
    training = TrainingSection(**{**SMALL, **settings})
    torch.manual_seed(training.seed)
    half = (
        training.precision == "fp16"
    )  # which no configuration chooses on a CPU, and which computes there all the same
    place = Place(torch.device("cpu"), torch.float16) if half else Place(*choose_device(training))
    trainee = Trainee(base, training, place)
    replayed = unequal_rows(4, seed=5) if training.replay else []
    rows = Rows(rows or unequal_rows(12), unequal_rows(training.validation_rows, seed=4), replayed)
    order = {"checkpoints": str(checkpoints or ""), "teacher": str(base) if training.teacher else ""}
    return prepare_loop(trainee, rows, order, interruption or Interruption())


def weights_of(loop):
    return {name: master.detach().clone() for name, master in loop.optimizer.named_masters().items()}


def are_equal(first, second):
    """Say whether two sets of weights are equal bit by bit."""
    import torch

    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def call_at_pass(loop, number, action):
    """Call something at the n-th forward pass of a loop, from 1."""
    passes = [0]

    def count(*_):
        passes[0] += 1
        if passes[0] == number:
            action()

    loop.objective.trainee.transformer.register_forward_pre_hook(count)
    return passes


def kill_at_pass(loop, number):
    def kill():
        raise Killed

    return call_at_pass(loop, number, kill)
