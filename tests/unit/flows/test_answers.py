"""Who is asked for the answers of an evaluation, as the configuration says."""

from types import SimpleNamespace

import pytest

from flows import answers
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EnvironmentProblem
from tasks.serving import steps


@pytest.mark.parametrize(("through", "asked"), [("process", None), ("server", "the server of 7 clients")])
def test_the_server_is_asked_where_the_configuration_says_so_and_a_process_by_itself(home, monkeypatch, through, asked):
    told = []
    monkeypatch.setattr(answers.steps, "generate_predictions", lambda *arguments: told.append(arguments))
    monkeypatch.setattr(
        answers,
        "evaluation_server",
        lambda its_home, serving, evaluation: f"the server of {evaluation.concurrency} clients",
    )
    config = RetrainConfig.model_validate({"evaluation": {"through": through, "concurrency": 7}})
    answers.generate_predictions("base", "servable", "rows", config, home, "store")
    assert told == [("base", "servable", "rows", config, home, "store", asked)]
    assert RetrainConfig().evaluation.through == "process"


def test_a_server_that_cannot_run_is_said_before_anything_is_trained(home, monkeypatch):
    monkeypatch.setattr(steps, "why_triton_cannot_run", lambda: "there is no serving environment")
    config = RetrainConfig.model_validate({"evaluation": {"through": "server"}})
    with pytest.raises(EnvironmentProblem, match=r"^evaluation\.through is server, and there is no serving"):
        steps.prepare_server.fn(config, home)
    monkeypatch.setattr(steps, "ensure_triton", lambda *_: SimpleNamespace(http="nowhere"))
    steps.prepare_server.fn(RetrainConfig(), home)
    monkeypatch.setattr(steps, "why_triton_cannot_run", lambda: None)
    steps.prepare_server.fn(config, home)
