"""Rows that are asked a second time are of those that are compared: the champion may have learned the first."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from flows import answers, retrain
from tasks.contracts.artifacts import DatasetRef, ServableModel
from tasks.contracts.asking import EvaluationServer, ServedAnswer
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EvaluationError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.evaluation import steps
from tasks.evaluation.generation import places_asked_again

ROWS = 20
CONFIG = RetrainConfig.model_validate({"evaluation": {"resamples": 200, "randomisations": 1_000}})


def row(n, answer="It is {}."):
    said = {"role": "assistant", "content": answer.format(n)}
    return {"id": f"{n:064x}", "slice": "code", "messages": [{"role": "user", "content": f"question {n}"}, said]}


@pytest.fixture
def dataset(tmp_path):
    write_jsonl(tmp_path / "eval.jsonl", map(row, range(ROWS)))
    return DatasetRef(tmp_path, "d", ROWS, 0, ROWS, {}, "e")


@pytest.fixture
def champion(tmp_path):
    """A champion that was trained on the first eight rows, and could replay the tenth."""
    for folder, numbers in (("trained", range(8)), ("replayed", [9])):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "train.jsonl", (row(n, "Other words: {}.") for n in numbers))
    return SimpleNamespace(dataset_path=tmp_path / "trained", replay_path=tmp_path / "replayed")


def files_of(champion):
    return [path / "train.jsonl" for path in (champion.dataset_path, champion.replay_path)]


def test_the_first_rows_are_asked_again_but_for_those_that_the_champion_learned(dataset, champion):
    assert places_asked_again(dataset, 3, ()) == [0, 1, 2]
    assert places_asked_again(dataset, 3, files_of(champion)) == [8, 10, 11]
    assert places_asked_again(dataset, 99, ()) == list(range(ROWS))
    write_jsonl(champion.dataset_path / "train.jsonl", map(row, range(ROWS)))
    with pytest.raises(EvaluationError, match=f"was trained on all {ROWS} evaluation rows"):
        places_asked_again(dataset, 3, files_of(champion))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Let a server answer, and return what asks it as the flow does."""

    @contextmanager
    def opened(servable):
        yield lambda messages, _reference: ServedAnswer(f"{servable.digest} says {messages[0]['content']}", 5, "stop")

    server, home = EvaluationServer(opened, "some software", 2), Home(tmp_path / "home")
    store = Store(home.store)
    monkeypatch.setattr(answers, "evaluation_server", lambda *_: server)
    monkeypatch.setattr(answers.steps, "generate_predictions", steps.generate_predictions.fn)
    config = CONFIG.model_copy(
        update={"evaluation": CONFIG.evaluation.model_copy(update={"through": "server", "asked_again": 4})}
    )

    def ask(system, dataset, champion):
        (tmp_path / "servable" / "model").mkdir(parents=True, exist_ok=True)
        servable = ServableModel(tmp_path / "servable", system, "onnx")
        return answers.generate_predictions(system, servable, dataset, config, home, store, champion)

    return SimpleNamespace(ask=ask, store=store)


def test_what_was_asked_again_is_in_the_report_whatever_the_champion_learned(served, dataset, champion):
    found = {system: served.ask(system, dataset, champion) for system in ("base", "champion", "candidate")}
    lines = list(read_jsonl(found["base"].path / "predictions.jsonl"))
    assert [n for n, line in enumerate(lines) if "again" in line] == [8, 10, 11, 12]
    report = steps.build_report.fn(found, CONFIG, served.store, champion)
    assert report.examples == ROWS - 9
    assert [each.asked_again for each in report.served.values()] == [4, 4, 4]


def test_answers_are_asked_anew_only_if_other_rows_are_asked_again(served, dataset, champion):
    first = served.ask("base", dataset, champion)
    assert served.ask("base", dataset, champion).digest == first.digest
    write_jsonl(champion.replay_path / "train.jsonl", [row(19)])
    assert [served.ask("base", dataset, whose).path for whose in (champion, None)].count(first.path) == 0
    write_jsonl(champion.replay_path / "train.jsonl", [row(9), row(19)])
    assert served.ask("base", dataset, champion).path == first.path


def test_the_flow_tells_who_is_asked_what_the_champion_learned(monkeypatch, tmp_path):
    stages = ("check_judge", "prepare_base_model", "prepare_teacher", "prepare_dataset", "prepare_replay")
    for name in (*stages, "prepare_general", "plan_training", "build_servable", "ask_general", "servable_of"):
        monkeypatch.setattr(retrain, name, lambda *_: None)
    monkeypatch.setattr(retrain, "find_version_by_alias", lambda *_: "the champion")
    monkeypatch.setattr(retrain, "TrainingJob", lambda *_: None)
    monkeypatch.setattr(retrain, "generate_predictions", lambda system, *given: (system, given[-1]))
    ground = retrain.prepare_ground(CONFIG, Home(tmp_path), Store(tmp_path), lambda _: None)
    assert ground.answers == {name: (name, "the champion") for name in ("base", "champion")}
