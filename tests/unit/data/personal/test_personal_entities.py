"""Named entities through presidio: the real library over a small rule-based spaCy pipeline."""

import importlib.util

import pytest

from tasks.contracts.cleaning_config import PersonalStep
from tasks.contracts.errors import EnvironmentProblem
from tasks.data.personal.step import PersonalData
from tasks.data.rows import build_row

HAS_PRESIDIO = bool(importlib.util.find_spec("presidio_analyzer") and importlib.util.find_spec("spacy"))


def section(**models):
    return PersonalStep(kinds=("named_entity", "email"), entity_models=models)


@pytest.fixture
def model(tmp_path):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Ada Byron"}, {"label": "GPE", "pattern": "Turin"}]
    )
    pipeline.to_disk(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.skipif(not HAS_PRESIDIO, reason="needs the extra presidio")
def test_entities_become_typed_pseudonyms_beside_the_other_kinds(model):
    step = PersonalData(section(en=model))
    row = build_row(
        [
            {"role": "user", "content": "Ada Byron moved to Turin."},
            {"role": "assistant", "content": "Ask ada@example.com"},
        ],
        "tickets",
        "default",
    )
    cleaned = step.clean([row])[0]
    assert [message["content"] for message in cleaned["messages"]] == [
        "<PERSON_1> moved to <LOCATION_1>.",
        "Ask <EMAIL_1>",
    ]
    assert step.found == {"PERSON": 1, "LOCATION": 1, "email": 1}


@pytest.mark.skipif(not HAS_PRESIDIO, reason="needs the extra presidio")
def test_a_model_that_is_not_installed_is_named():
    with pytest.raises(EnvironmentProblem, match=r"entity_models\.en .*en_no_such_model"):
        PersonalData(section(en="en_no_such_model"))


@pytest.mark.skipif(HAS_PRESIDIO, reason="the extra presidio is installed")
def test_without_the_extra_the_error_says_how_to_install_it():
    with pytest.raises(EnvironmentProblem, match=r"llm-retrain\[presidio\]"):
        PersonalData(section(en="en_core_web_sm"))


def test_named_entities_without_a_model_ask_for_one():
    with pytest.raises(EnvironmentProblem, match="entity_models"):
        PersonalData(section())
