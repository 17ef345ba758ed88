"""The general-ability set asked of real engines: every row has its reference's likelihood, and answers are short."""

import pytest
from tiny_model import make_tiny_base_model
from tiny_servables import build_onnx

from tasks.contracts.artifacts import ServableModel
from tasks.contracts.config import RetrainConfig
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of_directory, read_jsonl
from tasks.contracts.store import LookupOnlyStore, Store
from tasks.evaluation import steps
from tasks.evaluation.general_set import ANSWER_TOKENS, score_general

pytestmark = pytest.mark.integration


def test_two_models_are_asked_scored_and_not_asked_again(tmp_path):
    home = Home(tmp_path / "home")
    store = Store(home.store)
    systems = {}
    for seed, name in enumerate(("base", "candidate")):
        model = make_tiny_base_model(tmp_path / f"hf-{name}", seed=seed)
        directory = build_onnx(model, tmp_path / name / "model", "int8")
        systems[name] = ServableModel(tmp_path / name, digest_of_directory(directory), "onnx")
    general = steps.prepare_general.fn(RetrainConfig(), (), store)
    answers = steps.ask_general.fn(systems, general, home, store)
    lines = {name: list(read_jsonl(found.path / "predictions.jsonl")) for name, found in answers.items()}
    assert [len(found) for found in lines.values()] == [general.eval_rows] * 2
    for line in (*lines["base"], *lines["candidate"]):
        assert line["reference_nats"] > 0
        assert line["new_tokens"] <= ANSWER_TOKENS
        assert "again" not in line
    assert max(line["new_tokens"] for line in lines["base"]) == ANSWER_TOKENS, "or the limit was not tried"
    rows, part = score_general(answers, EvaluationSection(resamples=200, randomisations=1_000))
    assert part.examples == len(rows.ids) == general.eval_rows
    assert part.differences["base"]["reference_nats"].low < part.differences["base"]["reference_nats"].high
    assert steps.ask_general.fn(systems, general, home, LookupOnlyStore(home.store)) == answers
    assert steps.ask_general.fn(systems, None, home, store) == {}
