"""The way back: to any champion of before, proven before it is switched to, and changing nothing if it fails."""

import logging
import shutil

import pytest
from roll_outs_under_test import fail_in_the_ledger

from tasks.contracts.errors import RolloutError
from tasks.registry.ledger import read_ledger
from tasks.registry.versions import find_version
from tasks.serving import rollout as serving_rollout
from tasks.serving.routing import read_routing
from tasks.serving.triton_client import is_model_ready

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_rollback_that_fails_leaves_the_version_before_loaded(standing, monkeypatch):
    stage, *_ = standing
    before = stage.everything()
    assert f"{stage.name}-v1" in stage.loaded()
    fail_in_the_ledger(monkeypatch)
    with pytest.raises(RolloutError, match="injected in the ledger"):
        stage.roll_back()
    assert stage.everything() == before


def test_a_rollback_over_several_versions_serves_the_one_that_was_asked_for(standing):
    stage, _, _, three = standing
    stage.switch(three)
    assert f"{stage.name}-v1" not in stage.published(), "it was retired, and is published anew"
    assert stage.roll_back(to=1).version == 1
    assert stage.served_by() == f"{stage.name}-v1"
    assert stage.aliases() == {"champion": 1}, "nothing came before it"
    assert stage.events()[-1] == ("rolled back", 3, 1)
    with pytest.raises(RolloutError, match="its model was rolled back as version 2"):
        stage.switch(find_version(stage.config.registry, 2, stage.home), expected=1)
    assert stage.roll_back(to=3).version == 3, "also to one that was rolled back"


def test_a_rollback_proves_that_the_old_version_answers_as_evaluated_before_it_switches(standing, monkeypatch):
    stage, *_ = standing
    asked = []

    def ask_directly(address, name):
        asked.append((name, stage.served_by(), stage.aliases()["champion"]))
        return lambda _messages: "something else"

    monkeypatch.setattr(serving_rollout, "ask_directly", ask_directly)
    before = stage.everything()
    with pytest.raises(RolloutError, match="golden prompt 1 of 2 was answered 'something else'"):
        stage.roll_back()
    assert asked == [(f"{stage.name}-v1", f"{stage.name}-v2", 2)], "asked while the champion answered"
    assert stage.everything() == before


def damage(one):
    weights = one.servable_path / "model" / "1" / "genai" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda one: shutil.rmtree(one.servable_path), "version 1 at .* is damaged: it has no readable manifest"),
        (damage, "another sha256"),
        (lambda one: shutil.rmtree(one.predictions_path), "version 1"),
    ],
    ids=["its model is lost", "its model is damaged", "its answers are lost"],
)
def test_a_rollback_to_a_version_that_is_lost_or_damaged_changes_nothing_and_says_so(standing, harm, said):
    stage, one, _, three = standing
    stage.switch(three)  # version 1 is retired: its published copy is gone too
    before = stage.everything()
    harm(one)
    with pytest.raises(RolloutError, match=said):
        stage.roll_back(to=1)
    assert stage.everything() == before
    assert stage.events()[-1] == ("undone", 3, 1)
    assert "version 1" in read_ledger(stage.home, stage.name)[-1]["evidence"]


def test_what_was_rolled_back_comes_back_by_hand_only(standing):
    stage, _, two, _ = standing
    assert stage.roll_back().version == 1
    before = stage.everything()
    with pytest.raises(RolloutError, match="version 2 was not promoted: its model was rolled back as version 2"):
        stage.switch(two, expected=1)
    assert stage.everything() == before
    assert stage.switch(two).version == 2


def test_a_champion_that_cannot_be_routed_to_does_not_stop_a_rollback(standing, caplog):
    stage, _, two, _ = standing
    path = stage.home.routing_file(stage.name)
    serving_rollout.route_to(stage.home, stage.config.serving, 1)
    shutil.rmtree(two.servable_path)
    with caplog.at_level(logging.WARNING):
        assert stage.roll_back().version == 1
    assert "cannot be routed to" in caplog.text
    assert read_routing(path).version == 1
    assert not is_model_ready(stage.address, f"{stage.name}-v2")
