"""A roll-out that fails at any step leaves everything as it was: routing, aliases, loaded models, directories."""

import itertools
import logging

import pytest
from roll_outs_under_test import fail_in_the_ledger

from tasks.contracts.engine import GOLDEN_REQUEST_ID
from tasks.contracts.errors import RolloutError, ServingError, StoreError
from tasks.contracts.jsonl import read_jsonl
from tasks.registry.aliases import read_aliases, write_aliases
from tasks.registry.ledger import read_ledger
from tasks.serving import rollout as serving_rollout
from tasks.serving.tritonserver import ensure_triton

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def fail_through_the_router(monkeypatch):
    def ask_through(*_):
        def answer(_messages):
            raise ServingError("injected at the router")

        return answer

    monkeypatch.setattr(serving_rollout, "ask_through", ask_through)


def fail_after_one_alias(monkeypatch):
    calls = itertools.count()

    def write(registry, home, wanted):
        if next(calls) == 0:
            write_aliases(registry, home, {**read_aliases(registry, home), "previous": wanted["previous"]})
            raise RuntimeError("injected between two aliases")
        write_aliases(registry, home, wanted)

    monkeypatch.setattr("flows.rollout_steps.write_aliases", write)


@pytest.mark.parametrize(
    ("inject", "reason"),
    [
        (fail_through_the_router, "golden prompt 1: injected at the router"),
        (fail_after_one_alias, "RuntimeError: injected between two aliases"),
        (fail_in_the_ledger, "injected in the ledger"),
    ],
)
def test_a_promotion_that_fails_late_leaves_everything_as_it_was(standing, monkeypatch, inject, reason):
    stage, _, _, three = standing
    before = stage.everything()
    inject(monkeypatch)
    with pytest.raises(RolloutError, match=reason):
        stage.switch(three)
    assert stage.everything() == before
    last = read_ledger(stage.home, stage.name)[-1]
    assert (last["event"], last["from"], last["to"]) == ("undone", 2, 3)
    assert reason in last["evidence"]


def test_an_interrupt_is_undone_and_stays_an_interrupt(standing, monkeypatch):
    stage, _, _, three = standing
    before = stage.everything()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.rollout.move_aliases", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.switch(three)
    assert stage.everything() == before
    assert stage.events()[-1] == ("undone", 2, 3)


def test_a_model_that_does_not_load_and_one_that_answers_otherwise_leave_nothing_behind(standing):
    stage, *_ = standing
    before = stage.everything()

    def truncate(model):
        weights = model / "1" / "genai" / "model.onnx.data"
        weights.write_bytes(weights.read_bytes()[:100])

    with pytest.raises(RolloutError, match=r"cannot be loaded|does not load"):
        stage.switch(stage.version(change=truncate))
    with pytest.raises(RolloutError, match="golden prompt 1 of 2 was answered"):
        stage.switch(stage.version(seed=0, answers_of=stage.models[1]))
    assert stage.everything() == before


def test_an_undo_step_that_fails_hides_neither_the_reason_nor_the_other_steps(standing, monkeypatch):
    stage, _, _, three = standing
    before = stage.everything()
    with monkeypatch.context() as patched:
        fail_in_the_ledger(patched)

        def refuse(path, routing):
            raise ServingError("injected in the routing")

        patched.setattr("flows.rollout_steps.write_routing", refuse)
        with pytest.raises(RolloutError, match=r"injected in the ledger; and undoing it failed: .*injected in the rou"):
            stage.switch(three)
    last = read_ledger(stage.home, stage.name)[-1]
    assert last["event"] == "undo failed"
    assert "injected in the ledger" in last["evidence"]
    assert stage.aliases() == before[1]
    assert f"{stage.name}-v3" not in stage.loaded()
    assert stage.roll_back().version == 1, "the next command puts the rest in order"
    assert ("reconciled", 3, 2) in stage.events()
    assert stage.served_by() == f"{stage.name}-v1"


def test_a_servable_or_answers_of_another_version_are_refused(standing):
    stage, one, two, _ = standing
    before = stage.everything()
    with pytest.raises(RolloutError, match="and it was registered with"):
        stage.switch(stage.version(servable=one.servable_path.name))
    with pytest.raises(RolloutError, match="cannot vouch for version 5: they are answers of servable"):
        stage.switch(stage.version(predictions=two.predictions_path.name))
    (one.servable_path / "model" / "1" / "sitecustomize.py").write_text("")
    with pytest.raises(RolloutError, match=r"sitecustomize\.py is not in its manifest"):
        stage.switch(one)
    assert stage.everything() == before


def test_a_ledger_that_cannot_be_written_stops_a_promotion_before_it_changes_anything(standing, monkeypatch):
    stage, _, _, three = standing
    before = stage.everything()
    fail_in_the_ledger(monkeypatch, events=("started",))
    with pytest.raises(StoreError, match="injected in the ledger"):
        stage.switch(three)
    assert stage.everything() == before


def test_golden_prompts_stand_in_the_request_log_under_an_id_of_their_own(stage):
    stage.switch(stage.version())
    stage.served_by()
    ids = [line["id"] for line in read_jsonl(stage.home.request_log(stage.name))]
    assert ids[:2] == [GOLDEN_REQUEST_ID] * 2
    assert len(ids) == 3
    assert ids[2] != GOLDEN_REQUEST_ID, "what a user asks is told from them"


def test_retired_versions_go_and_other_stable_names_stay(standing):
    stage, _, _, three = standing
    vision = stage.config.serving.model_copy(update={"model_name": f"{stage.name}-vision"})
    ensure_triton(stage.home, vision)
    stage.switch(three)
    expected = {stage.name, f"{stage.name}-vision", f"{stage.name}-v2", f"{stage.name}-v3"}
    assert stage.published() == expected
    assert stage.loaded() == expected
    assert stage.aliases() == {"champion": 3, "previous": 2}


def test_a_retired_version_that_does_not_unload_is_a_note_and_no_failure(standing, monkeypatch, caplog):
    stage, _, _, three = standing

    def refuse(*_):
        raise ServingError("injected at unloading")

    monkeypatch.setattr(serving_rollout, "unload_version", refuse)
    with caplog.at_level(logging.WARNING):
        served = stage.switch(three)
    assert "could not be retired: injected at unloading" in served.note
    assert "injected at unloading" in caplog.text
    assert stage.events()[-1] == ("promoted", 2, 3)
    assert stage.served_by() == f"{stage.name}-v3"
