"""A process that is killed while it registers a version: the same run again finishes it, and there is one version."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from registers_at_once import candidate_of

from tasks.contracts.artifacts import GateDecision
from tasks.contracts.config import RetrainConfig
from tasks.registry.aliases import read_aliases
from tasks.registry.connection import connect
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import find_judged, gate_digest, list_versions, register_version

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CONFIG = RetrainConfig()
_KILLED = """
import os, signal, sys
from pathlib import Path
import mlflow

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

from test_killed_registration import inconclusive, register
from tasks.contracts.home import Home
owner = mlflow if sys.argv[2] == "register_model" else mlflow.MlflowClient
name = sys.argv[2]
assert callable(getattr(owner, name))
setattr(owner, name, die)
register(Home(Path(sys.argv[1])), inconclusive(Home(Path(sys.argv[1])), 1))
"""
MOMENTS = {
    "after its artifacts were uploaded": "finalize_logged_model",
    "before it is a version": "register_model",
    "after it is a version and before the alias": "set_registered_model_alias",
    "after the alias": "update_model_version",
}
"""What the process is killed instead of."""


def inconclusive(home, number):
    """Return a candidate that becomes challenger and no champion."""
    decision = GateDecision("inconclusive", "base", ("a reason",))
    return replace(candidate_of(home.root / "made", number), decision=decision)


def register(home, candidate):
    with tracked_run(CONFIG, home, "test", {}) as run:
        return register_version(candidate, CONFIG, run, None, home).version


def killed_at(home, moment):
    code = [sys.executable, "-c", _KILLED, str(home.root), moment]
    tests = Path(__file__).parents[1]
    done = subprocess.run(code, capture_output=True, text=True, check=False, cwd=tests.parent, env=environment(tests))
    assert done.returncode == -signal.SIGKILL, done.stderr[-3_000:]


def environment(tests):
    places = (str(tests), str(tests / "integration"), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def judged(home, candidate):
    digests = candidate.servable.digest, candidate.dataset.eval_digest, gate_digest(CONFIG)
    found = find_judged(CONFIG.registry, *digests, home)
    return found and found.version


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_the_same_run_again_finishes_the_registration_and_there_is_one_version(home, moment):
    killed_at(home, moment)
    candidate = inconclusive(home, 1)
    half = [version.is_complete for version in list_versions(CONFIG.registry, home)]
    assert half == ([False] if moment in ("set_registered_model_alias", "update_model_version") else [])
    assert judged(home, candidate) is None, "the next run must not take it for finished"
    assert register(home, candidate) == 1
    assert [(each.version, each.is_complete) for each in list_versions(CONFIG.registry, home)] == [(1, True)]
    assert read_aliases(CONFIG.registry, home) == {"challenger": 1}
    assert judged(home, candidate) == 1
    version = connect(CONFIG.registry, home).get_model_version("assistant", "1")
    assert version.description == "inconclusive: a reason"
    assert version.status == "READY"
    assert register(home, candidate) == 1, "and once more changes nothing"


def test_a_challenger_that_was_registered_meanwhile_keeps_the_alias(home):
    killed_at(home, "set_registered_model_alias")
    assert register(home, inconclusive(home, 2)) == 2
    assert read_aliases(CONFIG.registry, home) == {"challenger": 2}
    assert register(home, inconclusive(home, 1)) == 1
    assert read_aliases(CONFIG.registry, home) == {"challenger": 2}, "the newer one"
    assert [version.is_complete for version in list_versions(CONFIG.registry, home)] == [True, True]
