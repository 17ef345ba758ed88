"""The flow's own pieces: a replay and a teacher that the configuration names reach the training process."""

from dataclasses import replace

import pytest
from prefect import Task
from tiny_model import make_tiny_base_model

from flows.finished import find_finished
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import DataError, TrainingError
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.data.ingest import Place
from tasks.data.steps import build_dataset_task, ingest_rows, prepare_replay
from tasks.training.adapter import TrainingJob, training_steps
from tasks.training.steps import plan_training, prepare_base_model, prepare_teacher, train_adapter

pytestmark = pytest.mark.integration


def config_of(folder, **training):
    """Return a configuration with a tiny base and rows of its own."""
    return RetrainConfig.model_validate(
        {
            "base_model": {"source": f"dir:{folder / 'base'}"},
            "data": {
                "sources": [{"kind": "files", "path": str(folder / "own.jsonl")}],
                "near_duplicates": 0,
                "train_rows": 16,
                "eval_rows": 8,
            },
            "gate": {"min_examples": 4},
            "training": {
                "device": "cpu",
                "precision": "fp32",
                "rank": 2,
                "batch_rows": 4,
                "max_length_tokens": 40,
                **training,
            },
        }
    )


@pytest.fixture
def folder(tmp_path):
    make_tiny_base_model(tmp_path / "base")
    make_tiny_base_model(tmp_path / "large", seed=5, hidden=128)
    for name, count in (("own", 40), ("general", 30)):
        answer = "Return the sum." if name == "own" else "Open the file and read all of its lines."
        rows = [{"instruction": f"{name} question {n}", "output": answer} for n in range(count)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def built(config, name, place, base):
    """Build the data version of a file with the flow's own tasks."""
    sources = [{"kind": "files", "path": str(place.home.root.parent / f"{name}.jsonl")}]
    data = type(config.data).model_validate({**config.data.model_dump(), "sources": sources})
    return build_dataset_task.fn(ingest_rows.fn(data, place, data.sources), None, data, place, base)


def test_replay_and_teacher_reach_the_training_and_make_an_adapter_of_their_own(folder, home, caplog):
    store, config = Store(home.store), config_of(folder)
    place = Place(home, store, config.serving)
    base = prepare_base_model.fn(config, home, store)
    version = built(config, "general", place, base)
    config = config_of(
        folder,
        objective="distillation",
        teacher=f"dir:{folder / 'large'}",
        replay=version.digest[:12],
        replay_share=0.5,
        long_rows="truncate",
    )
    dataset = built(config, "own", place, base)
    teacher = prepare_teacher.fn(config, home, store)
    replay = prepare_replay.fn(config.training.replay, dataset, place)
    assert teacher is not None
    assert [row["messages"][0]["content"][:7] for row in read_jsonl(replay.path / "train.jsonl")][:1] == ["general"]
    job = TrainingJob(base, dataset, config.training, "", replay, teacher)
    caplog.set_level("INFO", logger="llm_retrain.training")
    plan_training.fn(job, home, store)
    steps = []
    adapter = train_adapter.fn(job, home, store, lambda e: steps.append(e) if e["event"] == "step" else None)
    assert caplog.text.count("The training needs about") == 1, "the training process plans too, and says nothing of it"
    assert steps == training_steps(adapter)
    assert len(steps) == 8, "16 rows and as many replayed ones, four a step"
    assert train_adapter.fn(job, home, store, steps.append) == adapter
    keys = {
        store.key("adapter", each.store_inputs())
        for each in (job, replace(job, replay=None), replace(job, teacher=None))
    }
    assert len(keys) == 3
    spelled = config.training.model_copy(update={"replay": version.digest})
    assert replace(job, training=spelled).store_inputs() == job.store_inputs(), "however the digest is shortened"


def test_a_replay_that_there_is_not_stops_the_flow_in_one_sentence_before_anything_is_made(folder, home):
    from flows import retrain as flow

    config = config_of(folder, replay="abcdef12")
    assert find_finished(config, home) is None, "there is no report yet"
    with pytest.raises(DataError, match=r"^training\.replay is 'abcdef12', and there is no data version yet"):
        flow.train_and_judge(config, home, "a reason")
    assert not home.store.exists() or list(home.store.iterdir()) == []


@pytest.fixture
def without_prefect(monkeypatch):
    """Let the flow call its stages as they are, which Prefect would record."""
    from flows import retrain as flow

    for name, stage in vars(flow).copy().items():
        if isinstance(stage, Task):
            monkeypatch.setattr(flow, name, stage.fn)
    return flow


def test_what_the_base_rules_out_is_refused_before_anything_is_built_or_asked(folder, home, without_prefect):
    flow, store, config = without_prefect, Store(home.store), config_of(folder, target_modules=["q_proy"])
    with pytest.raises(
        TrainingError, match=r"^training\.target_modules names 'q_proy', and the base model has no such"
    ):
        flow.prepare_ground(config, home, store, lambda dataset: None)
    made = {path.name for path in home.store.iterdir() if not path.name.startswith(".")}
    assert "dataset" in made and not made & {"servable", "predictions", "adapter"}
