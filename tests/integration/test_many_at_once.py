"""Twenty registrations at once in a real MLflow on sqlite: each becomes a version, and none is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.config import RegistrySection
from tasks.registry.aliases import read_aliases
from tasks.registry.versions import list_versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(580)]

PROCESSES, THREADS = 4, 5


@pytest.fixture
def registered(home):
    """Return candidate → version, registered by several threads of several processes, in a home that is new to all."""
    script = Path(__file__).parents[1] / "registers_at_once.py"
    reading, writing = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(home.root), str(first), str(THREADS), str(reading)],
            pass_fds=[reading],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in range(0, PROCESSES * THREADS, THREADS)
    ]
    os.close(reading)
    os.close(writing)
    said = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, "\n".join(err[-3_000:] for _, err in said)
    return dict(pair for out, _ in said for pair in json.loads(out.splitlines()[-1]))


def test_twenty_registrations_at_once_become_twenty_versions(home, registered):
    assert sorted(registered) == list(range(20))
    assert sorted(registered.values()) == list(range(1, 21)), "distinct, and without a gap"
    versions = {version.version: version for version in list_versions(RegistrySection(), home)}
    assert len(versions) == 20
    for candidate, number in registered.items():
        assert versions[number].servable_digest == f"{candidate:064x}", "the version of a candidate is its own"
        assert versions[number].verdict == ("promote" if candidate % 2 else "reject")
    challenger = read_aliases(RegistrySection(), home)["challenger"]
    assert versions[challenger].verdict == "promote", "a rejected version is no challenger"
