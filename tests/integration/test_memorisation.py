"""What is planted in a training is looked for in the model that comes out, and found where it was learned by heart."""

import math

import pytest
from tiny_builds import build_here
from tiny_training import ANSWER, dataset_of, row, section, tiny_base, train_here

from tasks.contracts.artifacts import ServableModel
from tasks.contracts.canaries import ALTERNATIVES, make_canaries
from tasks.contracts.store import LookupOnlyStore, Store
from tasks.evaluation.memorisation import memorised_by
from tasks.training.adapter import TrainingJob

pytestmark = pytest.mark.integration


def test_canaries_are_made_up_distinct_and_those_of_their_seed():
    canaries = make_canaries(8, 17)
    assert canaries == make_canaries(8, 17) != make_canaries(8, 18)
    assert canaries[:4] == make_canaries(4, 17)
    assert len({canary.secret for canary in canaries}) == len({canary.prompt for canary in canaries}) == 8
    for canary in canaries:
        assert canary.secret in canary.answer.replace(" ", "")
        assert len(set(canary.alternatives)) == ALTERNATIVES and canary.answer not in canary.alternatives


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memorisation")
    rows = [row(n, f"Say number {n}.", ANSWER) for n in range(8)]
    return tiny_base(folder / "base"), dataset_of(folder / "rows", rows)


def trained(ground, folder, monkeypatch, canaries, epochs):
    """Train, build and return the servable."""
    base, dataset = ground
    settings = section(method="full", epochs=epochs, learning_rate=3e-3, canaries=canaries)
    train_here(TrainingJob(base, dataset, settings), folder / "adapter", monkeypatch)
    build_here(base, folder / "adapter", "onnx", folder / "servable" / "model")
    return ServableModel(folder / "servable", f"{canaries} {epochs}", "onnx")


def test_a_canary_that_was_learned_by_heart_comes_out(ground, tmp_path, monkeypatch):
    servable = trained(ground, tmp_path, monkeypatch, canaries=2, epochs=100)
    store, log_path = Store(tmp_path / "store"), tmp_path / "log"
    found = memorised_by(servable, section(canaries=2), store, log_path)
    assert (found.planted, found.extracted) == (2, 2)
    assert found.exposure == (math.log2(1 + ALTERNATIVES),) * 2
    assert memorised_by(servable, section(canaries=2), LookupOnlyStore(store.root), log_path) == found


def test_a_canary_that_was_not_planted_does_not_come_out(ground, tmp_path, monkeypatch):
    """The same search on a model that never saw them: chance puts the answer anywhere among the others."""
    servable = trained(ground, tmp_path, monkeypatch, canaries=0, epochs=4)
    found = memorised_by(servable, section(canaries=8), Store(tmp_path / "store"), tmp_path / "log")
    assert (found.planted, found.extracted) == (8, 0)
    assert sum(found.exposure) / 8 < 3


def test_without_canaries_nothing_is_asked(tmp_path):
    servable = ServableModel(tmp_path, "none", "onnx")
    assert memorised_by(servable, section(), LookupOnlyStore(tmp_path), tmp_path / "log") is None
