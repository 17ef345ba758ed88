"""A roll-out that fails at any step leaves everything as it was: routing, aliases, loaded models, directories.

A real Triton and a real MLflow on sqlite; each test has a stable name, and so a ledger and aliases, of its own.
"""

import itertools
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from servers import free_ports, skip_without_triton
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, RegisteredVersion
from tasks.contracts.config import RetrainConfig, ServingSection
from tasks.contracts.engine import GOLDEN_REQUEST_ID, load_engine
from tasks.contracts.errors import RolloutError, ServingError, StoreError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.registry.aliases import read_aliases, write_aliases
from tasks.registry.connection import connect
from tasks.registry.ledger import append_to_ledger, read_ledger, verify_ledger
from tasks.registry.versions import find_version
from tasks.serving import rollout as serving_rollout
from tasks.serving.build import build_servable
from tasks.serving.routing import read_routing
from tasks.serving.triton_client import ask, is_model_ready, repository_index, unload_model
from tasks.serving.tritonserver import ensure_triton, stop_tritonserver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PROMPTS = ["hello", "Return the sum of two numbers."]
NAMES = (f"assistant{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home with a running Triton, its ports, and two tiny models as the store holds them."""
    skip_without_triton()
    folder = tmp_path_factory.mktemp("rollout")
    home = Home(folder / "home")
    http_port, grpc_port, metrics_port = free_ports(3)
    serving = ServingSection(
        http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, max_new_tokens=8, golden_prompts=2
    )
    store = Store(home.store)
    bases = [make_tiny_base_model(folder / f"base{seed}", seed) for seed in (0, 1)]
    servables = [
        build_servable(BaseModelRef(base, base.name, "dir:tiny"), None, serving, store, folder / "build.log")
        for base in bases
    ]
    try:
        ensure_triton(home, serving)
        yield home, serving, [servable.path for servable in servables]
    finally:
        stop_tritonserver(home)


@dataclass
class Stage:
    """A stable name, and what can be seen of it."""

    home: Home
    config: RetrainConfig
    models: list[Any]
    address: Any

    @property
    def name(self):
        return self.config.serving.model_name

    def version(self, seed=0, change=None, answers_of=None, **tags) -> RegisteredVersion:
        """Register a version of its own: one of the two models, and a file that makes its digest another one."""
        store, label = Store(self.home.store), f"{self.name}-{next(NAMES)}"

        def write_servable(out):
            shutil.copytree(self.models[seed] / "model", out / "model")
            (out / "model" / "1" / "label.txt").write_text(label)
            if change:
                change(out / "model")
            return {}

        def write_predictions(out):
            engine = load_engine((answers_of or self.models[seed]) / "model" / "1", threads=1)
            rows = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
            write_jsonl(
                out / "predictions.jsonl",
                ({"id": str(n), "messages": m, "answer": engine.generate(m).text} for n, m in enumerate(rows)),
            )
            return {}

        servable = store.produce("servable", {"label": label}, write_servable)
        predictions = store.produce("predictions", {"servable": servable.digest}, write_predictions)
        client = connect(self.config.registry, self.home)
        found = {
            **dict.fromkeys(("dataset", "report"), "0" * 64),
            **dict.fromkeys(("dataset_digest", "eval_digest", "gate_digest"), "x"),
            "verdict": "promote",
            "baseline": "base",
            "engine": "onnx",
            "champion_before": "none",
            "servable": servable.key,
            "servable_digest": servable.digest,
            "predictions": predictions.key,
            **tags,
        }
        made = client.create_model_version(self.name, "file:///nowhere", tags=found)
        return find_version(self.config.registry, int(made.version), self.home)

    def switch(self, version, outcome="promoted", expected="any"):
        from flows.rollout import switch_champion  # imports Prefect, so not where tests are collected

        return switch_champion(version, self.config, self.home, "test", outcome, expected)

    def settle(self, **changes):
        """Return the aliases once everything agrees with them, under settings with these changes."""
        from flows.rollout import settle

        return settle(self.config.model_copy(update=changes), self.home)

    def roll_back(self, to=None):
        """What `llm-retrain rollback` does."""
        from flows.promote import version_to_return_to

        aliases = self.settle()
        target = version_to_return_to(to, aliases, self.config.registry, self.home)
        return self.switch(target, "rolled back", aliases["champion"])

    def aliases(self):
        return read_aliases(self.config.registry, self.home)

    def loaded(self):
        index = repository_index(self.address)
        return {name for name, line in index.items() if name.startswith(self.name) and line["state"] == "READY"}

    def published(self):
        return {path.name for path in self.home.triton_repository.iterdir() if path.name.startswith(self.name)}

    def served_by(self):
        return ask(self.address, self.name, PROMPTS[0])["served_by"]

    def everything(self):
        """All that a roll-out changes."""
        routing = read_routing(self.home.routing_file(self.name))
        return routing, self.aliases(), self.loaded(), self.published(), self.served_by()

    def events(self):
        return [(line["event"], line["from"], line["to"]) for line in read_ledger(self.home, self.name)]


@pytest.fixture
def stage(place):
    """A fresh stable name on the running server."""
    home, serving, models = place
    name = next(NAMES)
    config = RetrainConfig.model_validate(
        {"serving": {**serving.model_dump(), "model_name": name}, "registry": {"model_name": name}}
    )
    connect(config.registry, home).create_registered_model(name)
    address = ensure_triton(home, config.serving)
    stage = Stage(home, config, models, address)
    yield stage
    with ThreadPoolExecutor() as together:  # each takes Triton two seconds, most of them waiting
        list(together.map(lambda loaded: unload_model(address, loaded, 60), stage.loaded()))


@pytest.fixture
def standing(stage):
    """Version 1 is previous, version 2 champion, version 3 challenger."""
    one, two, three = stage.version(), stage.version(seed=1), stage.version()
    stage.switch(one)
    stage.switch(two)
    write_aliases(stage.config.registry, stage.home, {"previous": 1, "champion": 2, "challenger": 3})
    assert stage.served_by() == f"{stage.name}-v2"
    return stage, one, two, three


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


def fail_in_the_ledger(monkeypatch, events=("promoted", "rolled back")):
    def append(home, event, *rest):
        if event in events:
            raise StoreError("injected in the ledger")
        append_to_ledger(home, event, *rest)

    monkeypatch.setattr("flows.rollout_steps.append_to_ledger", append)


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


def test_a_rollback_that_fails_leaves_the_version_before_loaded(standing, monkeypatch):
    stage, *_ = standing
    before = stage.everything()
    assert f"{stage.name}-v1" in stage.loaded()
    fail_in_the_ledger(monkeypatch)
    with pytest.raises(RolloutError, match="injected in the ledger"):
        stage.roll_back()
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


@pytest.mark.parametrize(
    ("last_step", "ledger_ends", "champion"),
    [("move_aliases", ("promoted", 2, 3), 3), ("serve", ("undone", 2, 3), 2)],
)
def test_a_crash_is_put_in_order_and_the_rollback_after_it_finds_its_way(standing, last_step, ledger_ends, champion):
    """The process dies just after a step of the promotion of version 3."""
    stage, *_ = standing
    code = f"""
import os, sys
from flows import rollout
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.versions import find_version
config, home = RetrainConfig.model_validate_json(sys.argv[1]), Home.from_environment()
step = rollout.{last_step}
rollout.{last_step} = lambda *arguments: (step(*arguments), os._exit(9))
rollout.switch_champion(find_version(config.registry, 3, home), config, home, "crash", "promoted")
"""
    environment = {**os.environ, "LLM_RETRAIN_HOME": str(stage.home.root)}
    done = subprocess.run(
        [sys.executable, "-c", code, stage.config.model_dump_json()], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 9, done.stderr.decode()[-2000:]
    assert stage.served_by() == f"{stage.name}-v3"
    aliases = stage.settle()
    assert ledger_ends in stage.events()
    assert (aliases["champion"], stage.served_by()) == (champion, f"{stage.name}-v{champion}")
    assert stage.roll_back().version == champion - 1
    assert stage.aliases()["champion"] == champion - 1
    if champion == 3:
        assert stage.aliases()["previous"] == 1


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


def test_a_verdict_against_another_champion_promotes_nothing(standing):
    stage, _, _, three = standing
    before, events = stage.everything(), stage.events()
    for expected, named in ((1, "version 1"), (None, "no champion")):
        with pytest.raises(RolloutError, match=f"version 3 was to replace {named}, and by now that is version 2"):
            stage.switch(three, expected=expected)
    assert (stage.everything(), stage.events()) == (before, events)
    assert stage.switch(three, expected=2).version == 3


@pytest.mark.parametrize("fails", [False, True], ids=["that succeeds", "that is undone"])
def test_a_challenger_that_is_registered_during_a_roll_out_stays_challenger(standing, monkeypatch, fails):
    stage, _, _, three = standing
    four = stage.version()
    if fails:
        fail_in_the_ledger(monkeypatch)
    monkeypatch.setattr("flows.rollout.serve", with_a_new_challenger(stage, four))
    before = stage.aliases()
    if fails:
        with pytest.raises(RolloutError, match="injected in the ledger"):
            stage.switch(three)
        assert stage.aliases() == {**before, "challenger": 4}
    else:
        stage.switch(three)
        assert stage.aliases() == {"champion": 3, "previous": 2, "challenger": 4}


def with_a_new_challenger(stage, version):
    """Return the step that serves, with a retraining that registers its version meanwhile."""
    from flows.rollout_steps import serve

    def step(*arguments):
        served = serve(*arguments)
        client = connect(stage.config.registry, stage.home)
        client.set_registered_model_alias(stage.name, "challenger", str(version.version))
        return served

    return step


def test_of_two_promotions_at_once_against_one_champion_one_wins_and_the_other_is_told(standing):
    """Two processes, each with a version that was judged against version 2."""
    stage, *_ = standing
    stage.version()
    code = """
import os, sys
from flows import rollout
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RolloutError
from tasks.contracts.home import Home
from tasks.registry.versions import find_version
config, home = RetrainConfig.model_validate_json(sys.argv[1]), Home.from_environment()
target = find_version(config.registry, int(sys.argv[2]), home)
os.read(int(sys.argv[3]), 1)
try:
    rollout.switch_champion(target, config, home, "at once", "promoted", 2)
    sys.stdout.write("won")
except RolloutError as error:
    sys.stdout.write(f"told: {error}")
"""
    environment = {**os.environ, "LLM_RETRAIN_HOME": str(stage.home.root)}
    reading, writing = os.pipe()
    contestants = {
        version: subprocess.Popen(
            [sys.executable, "-c", code, stage.config.model_dump_json(), str(version), str(reading)],
            env=environment,
            pass_fds=[reading],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in (3, 4)
    }
    os.close(reading)
    os.close(writing)
    ended = {version: process.communicate(timeout=250) for version, process in contestants.items()}
    said = {version: out or err[-2_000:] for version, (out, err) in ended.items()}
    won = [version for version, words in said.items() if words == "won"]
    assert len(won) == 1, said
    (winner,), (loser,) = won, {3, 4} - set(won)
    told = f"version {loser} was to replace version 2, and by now that is version {winner}; nothing was changed"
    assert told in said[loser]
    assert stage.aliases()["champion"] == winner
    assert stage.served_by() == f"{stage.name}-v{winner}"
    assert stage.events()[-1] == ("promoted", 2, winner)
    assert not [event for event in stage.events() if event[2] == loser], "the other began nothing"
    assert verify_ledger(stage.home) == []


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


def test_another_registry_does_not_take_the_served_model_down(standing):
    """A typing mistake in registry.model_name, or a lost database: no champion is known, and one answers."""
    stage, *_ = standing
    before = stage.everything()
    registry = stage.config.registry.model_copy(update={"model_name": f"{stage.name}-typo"})
    with pytest.raises(RolloutError, match=f"is answered by {stage.name}-v2, and the registered model .* no champion"):
        stage.settle(registry=registry)
    assert stage.everything() == before


def test_a_routing_that_names_nobodys_champion_is_emptied(stage):
    """A crash in the very first promotion: it was routed, and no alias was set."""
    stage.switch(stage.version())
    write_aliases(stage.config.registry, stage.home, {})
    intent = {"outcome": "promoted", "aliases": {}}
    append_to_ledger(stage.home, "started", stage.name, None, 1, "test", "", intent)
    assert stage.settle() == {}
    assert read_routing(stage.home.routing_file(stage.name)).champion is None
    assert stage.events()[-1] == ("reconciled", 1, None)


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
