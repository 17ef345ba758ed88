"""Trainings on tiny models in this process: what the training process does, without starting one."""

from tiny_model import make_tiny_base_model

from tasks.contracts import worker
from tasks.contracts.artifacts import BaseModelRef, DatasetRef
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.training_config import TrainingSection
from tasks.training import process
from tasks.training.adapter import TrainingJob

ANSWER = "Return the sum of two numbers."


def tiny_base(folder, seed=0, **shape):
    """Write a tiny base model and return its reference."""
    return BaseModelRef(make_tiny_base_model(folder, seed, **shape), f"base {seed}", "dir:tiny")


def row(number, question, answer, rejected=None):
    """Return a canonical row of one question."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    whole = {"id": f"{number:064d}", "messages": messages}
    return whole if rejected is None else {**whole, "rejected": rejected}


def dataset_of(folder, rows):
    """Write rows as a data set's training rows and return its reference."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", rows)
    count = len(rows)
    return DatasetRef(folder, folder.name, count, train_rows=count, eval_rows=0, rejected={}, eval_digest="none")


def section(**settings):
    """Return training settings for a CPU in fp32; what is named counts."""
    return TrainingSection.model_validate({"device": "cpu", "precision": "fp32", "batch_rows": 4, **settings})


def train_here(job: TrainingJob, out, monkeypatch):
    """Train a job in this process and return what it said; the adapter is in `out`."""
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_events", [Recorder(said)])
        process.run(job.order(out, None))
    return said


def start_of(said):
    """Return what was said of the rows before the first step."""
    return next(event for event in said if event["event"] == "start")


class Recorder:
    """Takes the lines of events."""

    def __init__(self, said):
        self.said = said

    def write(self, line):
        """Keep one event."""
        import json

        self.said.append(json.loads(line))
