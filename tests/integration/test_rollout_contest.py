"""Roll-outs that others get in the way of: a crash in the middle, another promotion, another registry."""

import os
import signal
import subprocess
import sys

import pytest
from roll_outs_under_test import fail_in_the_ledger

from tasks.contracts.errors import RolloutError
from tasks.registry.aliases import write_aliases
from tasks.registry.connection import connect
from tasks.registry.ledger import append_to_ledger, verify_ledger
from tasks.serving.routing import read_routing

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


CRASHES = {
    "between routing and alias": ("after('serve')", ("undone", 2, 3), 2),
    "between two aliases": ("instead_of_alias('champion')", ("undone", 2, 3), 2),
    "between alias and ledger": ("after('move_aliases')", ("promoted", 2, 3), 3),
    "in the ledger's last line": ("in_the_line('promoted')", ("promoted", 2, 3), 3),
    "in the ledger's first line": ("in_the_line('started')", None, 2),
}
"""Where the process that promotes version 3 is killed, how the ledger ends after that, and who is champion."""

_KILLED = """
import os, signal, sys
from flows import rollout
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry import chain
from tasks.registry.versions import find_version

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def after(name):
    step = getattr(rollout, name)
    setattr(rollout, name, lambda *arguments: (step(*arguments), die()))

def instead_of_alias(alias):
    import mlflow
    move = mlflow.MlflowClient.set_registered_model_alias
    one = lambda client, name, which, version: die() if which == alias else move(client, name, which, version)
    mlflow.MlflowClient.set_registered_model_alias = one

def in_the_line(event):
    write = chain.append_whole
    def torn(descriptor, line, *rest):
        if f'"event":"{event}"'.encode() in line:
            os.write(descriptor, line[: len(line) // 2])
            die()
        write(descriptor, line, *rest)
    chain.append_whole = torn

config, home = RetrainConfig.model_validate_json(sys.argv[1]), Home.from_environment()
target = find_version(config.registry, 3, home)
eval(sys.argv[2])
rollout.switch_champion(target, config, home, "crash", "promoted", 2)
"""


@pytest.mark.parametrize(("moment", "ledger_ends", "champion"), CRASHES.values(), ids=CRASHES)
def test_a_crash_is_put_in_order_and_the_rollback_after_it_finds_its_way(standing, moment, ledger_ends, champion):
    """A client asks meanwhile: whatever is killed, and when, somebody answers."""
    stage, *_ = standing
    environment = {**os.environ, "LLM_RETRAIN_HOME": str(stage.home.root)}
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, stage.config.model_dump_json(), moment],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert stage.served_by() == f"{stage.name}-v{2 if 'started' in moment else 3}", "somebody answers at once"
    aliases = stage.settle()
    if ledger_ends:
        assert ledger_ends in stage.events()
    assert (aliases["champion"], stage.served_by()) == (champion, f"{stage.name}-v{champion}")
    assert aliases["previous"] == champion - 1
    assert not [problem for problem in verify_ledger(stage.home) if problem.breaks_chain]
    assert stage.roll_back().version == champion - 1
    assert stage.aliases()["champion"] == champion - 1
    if champion == 3:
        assert stage.aliases()["previous"] == 1


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
    assert not [problem for problem in verify_ledger(stage.home) if problem.breaks_chain], "crashes here tore lines"


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
