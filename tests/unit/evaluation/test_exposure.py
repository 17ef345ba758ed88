"""Exposure as Carlini et al., The Secret Sharer, 2019 (arXiv 1802.08232) define it: log2 |R| - log2 rank(s)."""

import math
from types import SimpleNamespace

import pytest

from tasks.contracts.artifacts import ServableModel
from tasks.contracts.store import Store
from tasks.contracts.training_config import TrainingSection
from tasks.evaluation import memorisation, memorisation_process


@pytest.fixture
def exposed(tmp_path, monkeypatch):
    """Return what is made of canaries with such places among others of their kind."""

    def told(ranks, of):
        events = [{"event": "canary", "extracted": False, "rank": rank, "of": of} for rank in ranks]
        monkeypatch.setattr(memorisation, "run_worker", lambda *_: [{"event": "loaded"}, *events])
        servable = ServableModel(tmp_path, "servable", "onnx")
        section = TrainingSection(canaries=len(ranks))
        return memorisation.memorised_by(
            servable, section, Store(tmp_path / f"{ranks} {of}"), tmp_path / "log"
        ).exposure

    return told


def test_exposure_is_the_logarithm_of_all_less_that_of_the_rank(exposed):
    """Of 32: the likeliest 5 bits, the least likely 0, the second 4, the third log2(32 / 3); of 8 the second 2."""
    assert exposed((1, 2, 3, 32), 32) == pytest.approx((5.0, 4.0, math.log2(32 / 3), 0.0))
    assert exposed((2, 8), 8) == pytest.approx((2.0, 0.0))


@pytest.mark.parametrize(("others", "rank"), [([3.0, 4.0, 5.0], 1), ([1.0, 3.0, 4.0], 2), ([1.0, 1.5, 1.9], 4)])
def test_the_rank_counts_the_answers_that_are_likelier(others, rank, monkeypatch, tmp_path):
    said = []

    def generate_many(conversations, answers, _most):
        assert len(conversations) == len(answers) == 4
        for place, nats in enumerate((2.0, *others)):
            yield place, None, SimpleNamespace(nats=nats)

    engine = SimpleNamespace(generate_many=generate_many, generate=lambda *_: SimpleNamespace(text="1 2"))
    monkeypatch.setattr(memorisation_process, "load_engine", lambda _: engine)
    monkeypatch.setattr(memorisation_process, "say", lambda event, **facts: said.append(facts))
    canary = {"prompt": "?", "answer": "1 2 3", "secret": "123", "alternatives": ["4", "5", "6"]}
    memorisation_process.run({"version_directory": str(tmp_path), "canaries": [canary]})
    assert said == [{"extracted": False, "rank": rank, "of": 4}]
