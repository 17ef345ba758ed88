"""Preference tuning and distillation from rows to what is learned, on tiny models in this process."""

import pytest
from small_runs import small_run
from tiny_training import dataset_of, row, section, start_of, tiny_base, train_here

from tasks.contracts.config import DataSection
from tasks.contracts.errors import TrainingError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest
from tasks.training.adapter import TrainingJob
from tasks.training.loop.examples import Example
from tasks.training.loop.interruption import Interruption
from tasks.training.loop.objectives import Preference
from tasks.training.loop.trainee import Place as TrainingPlace
from tasks.training.loop.trainee import Trainee

GOOD, BAD = "Return the sum.", "Open the file and read all of its lines."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Return a data version of preference pairs, built by the data engine out of a file."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"prompt": f"Say  number {n}.", "chosen": GOOD, "rejected": f"{BAD}  "} for n in range(24)]
    write_jsonl(folder / "pairs.jsonl", rows)
    place = Place(Home(folder / "home"), Store(folder / "store"))
    data = DataSection.model_validate(
        {
            "sources": [{"kind": "files", "path": str(folder / "pairs.jsonl")}],
            "cleaning": [{"step": "unicode"}, {"step": "whitespace"}],
            "near_duplicates": 0,
            "train_rows": 16,
            "eval_rows": 4,
        }
    )
    return build_dataset(ingest(data, place, data.sources), None, data, place)


def steps_of(said):
    return [event for event in said if event["event"] == "step"]


def test_the_rejected_answers_go_through_the_data_engine_into_training_and_evaluation_rows(pairs):
    for split, count in (("train", 16), ("eval", 4)):
        rows = list(read_jsonl(pairs.path / f"{split}.jsonl"))
        assert len(rows) == count
        assert {each["rejected"].strip() for each in rows} == {BAD}
        assert {each["messages"][-1]["content"] for each in rows} == {GOOD}


def test_pairs_teach_to_prefer_the_chosen_answer_and_each_step_says_by_how_much(base, pairs, tmp_path, monkeypatch):
    training = section(objective="dpo", rank=4, learning_rate=3e-3, epochs=6)
    steps = steps_of(train_here(TrainingJob(base, pairs, training), tmp_path / "adapter", monkeypatch))
    first, last = steps[0], steps[-1]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert (first["reward_margin"], first["reward_accuracy"]) == (pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1))
    assert last["loss"] < 0.5 * first["loss"]
    assert last["reward_margin"] > 1
    assert last["reward_accuracy"] == 1


def test_the_loss_and_the_rewards_are_those_of_trl_for_whole_log_probabilities(base, pairs):
    """trl's sigmoid loss: -log σ(β ((π chosen - π rejected) - (ref chosen - ref rejected))), meaned over pairs."""
    import torch
    from torch.nn.functional import logsigmoid

    from tasks.training.loop.examples import RowEncoder, encode_rows

    training = section(objective="dpo", rank=2, dpo_beta=0.7)
    torch.manual_seed(0)
    trainee = Trainee(base.path, training, TrainingPlace(torch.device("cpu"), torch.float32))
    encoder = RowEncoder(trainee.tokenizer, "")
    examples = encode_rows(pairs.path / "train.jsonl", encoder, training, 512).examples[:5]
    objective = Preference(trainee, examples, training.dpo_beta)
    objective.prepare()
    reference = logps(trainee, examples)
    with torch.no_grad():
        for parameter in trainee.trained_parameters().values():
            parameter.add_(0.03 * torch.randn_like(parameter))
    policy = logps(trainee, examples)
    chosen, rejected = (0.7 * (policy[side] - reference[side]) for side in (0, 1))
    expected = -logsigmoid(chosen - rejected).mean()
    loss = objective.loss_sum(range(3)) + objective.loss_sum([3, 4])
    assert loss.item() / objective.divisor(range(5)) == pytest.approx(expected.item(), abs=1e-4)
    said = objective.measures()
    assert said["reward_margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-4)
    assert said["reward_accuracy"] == pytest.approx((chosen > rejected).float().mean().item())
    assert objective.measures() == {}, "the next step's begin anew"


def test_rewards_are_of_the_rows_of_a_step_and_not_of_repeated_or_held_out_ones(base, monkeypatch):
    """A process of several that are sharded repeats its shortest row, to call the model as often as the others."""
    run = small_run(base.path, objective="dpo", validation_rows=4, validations=3)
    filled = [([row], 1.0) for row in run.schedule[0]] + [([run.schedule[0][0]], 0.0)] * 2
    monkeypatch.setattr("tasks.training.loop.loop.passes", lambda *_: filled)
    run._random_at_start = {}
    run._gradients(0)
    assert len(run.objective._rewards) == len(run.schedule[0])
    run.validation.loss(Interruption())
    assert run.validation._objective._rewards == [], "nobody would ever take them"


def test_the_tokens_of_a_pair_are_those_of_both_passes(base):
    run = small_run(base.path, objective="dpo", epochs=0.1)
    run.run()
    pairs = [run.objective.examples[row] for row in run.schedule[0]]
    expected = sum(2 * len(p.prompt_ids) + len(p.answer_ids) + len(p.rejected_ids) for p in pairs)
    assert (run.progress.step, run.progress.tokens) == (1, expected)
    alone = small_run(base.path, epochs=0.1, rows=[Example((5, 6, 7), (8, 9))])
    alone.run()
    assert alone.progress.tokens == 5


def logps(trainee, examples):
    """Return (2, pairs): log-probabilities of chosen and rejected answers, a row at a time, from whole logits."""
    import torch

    found = []
    for answers in ([e.answer_ids for e in examples], [e.rejected_ids for e in examples]):
        line = []
        for example, answer in zip(examples, answers, strict=True):
            ids = torch.tensor([example.prompt_ids + answer])
            with torch.inference_mode():
                logits = trainee.transformer(ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
            line.append(logits.gather(1, torch.tensor(answer)[:, None]).sum())
        found.append(torch.stack(line))
    return torch.stack(found)


def test_rows_without_a_rejected_answer_are_counted_and_refused(base, pairs, tmp_path, monkeypatch):
    mixed = dataset_of(tmp_path / "mixed", [row(0, "Name it.", GOOD, BAD), row(1, "Name it too.", GOOD)])
    job = TrainingJob(base, mixed, section(objective="dpo"))
    with pytest.raises(
        TrainingError, match=r"objective is dpo, and 1 of 2 rows have no rejected answer; expected rows"
    ):
        train_here(job, tmp_path / "adapter", monkeypatch)
    replaying = TrainingJob(base, pairs, section(objective="dpo", replay="12345678"), replay=mixed)
    with pytest.raises(TrainingError, match=r"1 of 2 rows of training\.replay have no rejected answer"):
        train_here(replaying, tmp_path / "adapter", monkeypatch)


@pytest.mark.parametrize(("long_rows", "counts"), [("drop", (1, 0)), ("truncate", (0, 1))])
def test_a_pair_is_as_long_as_its_longer_answer(base, tmp_path, monkeypatch, long_rows, counts):
    rows = [row(n, f"Say number {n}.", GOOD, BAD) for n in range(4)] + [row(4, "Say number 4.", GOOD, BAD * 9)]
    training = section(objective="dpo", max_length_tokens=96, long_rows=long_rows)
    job = TrainingJob(base, dataset_of(tmp_path / "rows", rows), training)
    said = train_here(job, tmp_path / "adapter", monkeypatch)
    start, step = start_of(said), steps_of(said)[0]
    assert (start["rows_too_long"], start["rows_cut_off"]) == counts
    assert step["loss"] > 0


def test_a_teacher_larger_than_the_student_is_learned_from(base, tmp_path, monkeypatch):
    large = tiny_base(tmp_path / "large", seed=3, hidden=128)
    rows = dataset_of(tmp_path / "rows", [row(n, f"Say number {n}.", GOOD) for n in range(12)])
    training = section(
        objective="distillation", teacher="dir:/large", teacher_weight=1.0, rank=8, learning_rate=1e-2, epochs=10
    )
    steps = steps_of(train_here(TrainingJob(base, rows, training, teacher=large), tmp_path / "adapter", monkeypatch))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"], "the divergence from the teacher falls"


def test_rows_that_do_not_fit_the_teachers_context_are_long_rows(base, tmp_path, monkeypatch):
    import json

    short = tiny_base(tmp_path / "short", seed=3)
    config = json.loads((short.path / "config.json").read_text()) | {"max_position_embeddings": 64}
    (short.path / "config.json").write_text(json.dumps(config))
    rows = dataset_of(tmp_path / "rows", [row(0, "Say number 0.", GOOD), row(1, "Say number 1.", BAD * 9)])
    training = section(objective="distillation", teacher="dir:/short")
    start = start_of(train_here(TrainingJob(base, rows, training, teacher=short), tmp_path / "adapter", monkeypatch))
    assert (start["longest_row_tokens"], start["rows"], start["rows_too_long"]) == (64, 1, 1)
