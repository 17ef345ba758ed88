"""Replay and elastic weight consolidation hold what a model could do before; on a tiny model that learned it first."""

import shutil

import pytest
from tiny_training import dataset_of, row, section, tiny_base, train_here

from tasks.contracts.artifacts import BaseModelRef
from tasks.training.adapter import TrainingJob

OLD = [row(n, f"Say number {n}.", "Open the file and read all of its lines.") for n in range(12)]
NEW = [row(n, f"Say number {n}, please.", "The capital of France is Paris.") for n in range(12)]
SETTINGS = {"method": "full", "learning_rate": 4e-3, "epochs": 10}


@pytest.fixture(scope="module")
def able(tmp_path_factory):
    """Return a model that gives the old answers, and the rows that taught it."""
    folder = tmp_path_factory.mktemp("able")
    blank, old = tiny_base(folder / "blank"), dataset_of(folder / "old", OLD)
    with pytest.MonkeyPatch.context() as patch:
        training = section(method="full", learning_rate=4e-3, epochs=12)
        train_here(TrainingJob(blank, old, training), folder / "able", patch)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(blank.path / name, folder / "able" / name)
    return BaseModelRef(folder / "able", "able", "dir:able"), old


def loss_on(base, model, rows):
    """Return the mean loss of rows' answers under a saved model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.training.loop.examples import RowEncoder

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    transformer, encoder, total, count = (
        AutoModelForCausalLM.from_pretrained(model).eval(),
        RowEncoder(tokenizer, ""),
        0.0,
        0,
    )
    for each in rows:
        example = encoder.encode(each)
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        with torch.inference_mode():
            logits = transformer(ids).logits[0].log_softmax(-1)
        first = len(example.prompt_ids)
        total -= sum(logits[first + n - 1, token].item() for n, token in enumerate(example.answer_ids))
        count += len(example.answer_ids)
    return total / count


@pytest.fixture(scope="module")
def forgot(able, tmp_path_factory):
    """Return what a training without a guard leaves: its events, the losses on old and on new rows."""
    return trained(able, tmp_path_factory.mktemp("unguarded"))


def trained(able, folder, **settings):
    """Teach the new rows; a replay's digest is looked up before a training, so any stands for the old rows here."""
    base, old = able
    new, replay = dataset_of(folder / "new", NEW), old if "replay" in settings else None
    with pytest.MonkeyPatch.context() as patch:
        job = TrainingJob(base, new, section(**SETTINGS, **settings), replay=replay)
        said = train_here(job, folder / "adapter", patch)
    steps = [event for event in said if event["event"] == "step"]
    return steps, loss_on(base, folder / "adapter", OLD), loss_on(base, folder / "adapter", NEW)


def test_without_a_guard_the_old_answers_are_forgotten(able, forgot):
    base, _ = able
    _, old, new = forgot
    assert loss_on(base, base.path, OLD) < 0.2
    assert (old > 2, new < 0.5) == (True, True), (old, new)


def test_replayed_rows_keep_the_old_answers_and_the_new_ones_are_learned(able, forgot, tmp_path):
    steps, old, new = trained(able, tmp_path, replay="12345678", replay_share=0.5)
    assert len(steps) == 2 * len(forgot[0]), "as many replayed rows as new ones"
    assert old < 0.2 * forgot[1]
    assert new < 1


def test_consolidation_holds_the_weights_and_its_penalty_stands_beside_the_loss(able, forgot, tmp_path):
    """With so small a share no row is replayed: what holds is the penalty alone."""
    held, old, _ = trained(able, tmp_path, replay="12345678", replay_share=0.01, ewc_weight=1e8)
    assert len(held) == len(forgot[0])
    assert old < 0.5 * forgot[1]
    assert held[0]["ewc_penalty"] == 0, "before the first step nothing has moved"
    assert held[-1]["ewc_penalty"] > 0
    assert "ewc_penalty" not in forgot[0][0]
    assert held[0]["loss"] == pytest.approx(forgot[0][0]["loss"], abs=1e-5), "the loss is said without the penalty"
