"""Where a rollback may go: to what was champion once, and nowhere else."""

import pytest

from flows.promote import version_to_return_to
from tasks.contracts.config import RegistrySection
from tasks.contracts.errors import RegistryError
from tasks.registry.connection import connect
from tasks.registry.ledger import append_to_ledger
from tasks.registry.versions import find_version

REGISTRY = RegistrySection()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Versions 1, 2 and 4 were champion in that order; 3 was rejected, 5 was never promoted."""
    from tasks.contracts.home import Home

    home = Home(tmp_path_factory.mktemp("home"))
    client = connect(REGISTRY, home)
    client.create_registered_model("assistant")
    tags = dict.fromkeys(("servable", "dataset", "predictions", "report"), "0" * 64)
    tags |= dict.fromkeys(("servable_digest", "dataset_digest", "eval_digest", "gate_digest"), "x")
    tags |= {"baseline": "base", "engine": "onnx", "champion_before": "none"}
    for version in range(1, 6):
        verdict = "reject" if version == 3 else "promote"
        client.create_model_version("assistant", "file:///nowhere", tags={**tags, "verdict": verdict})
    for before, after in ((None, 1), (1, 2), (2, 4)):
        append_to_ledger(home, "promoted", "assistant", before, after, "nightly")
    append_to_ledger(home, "undone", "assistant", 4, 5, "did not load")
    return home


ALIASES = {"champion": 4, "previous": 2}


def test_without_a_version_it_goes_to_the_champion_before(home):
    assert version_to_return_to(None, ALIASES, REGISTRY, home).version == 2


def test_any_version_that_was_champion_once_can_be_returned_to(home):
    for version in (1, 2):
        assert version_to_return_to(version, ALIASES, REGISTRY, home).version == version
    assert version_to_return_to(5, {"champion": 4, "previous": 5}, REGISTRY, home).version == 5, "the alias says so"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (5, r"version 5 never was champion.*expected one of those that were: 1, 2; .*llm-retrain promote 5"),
        (3, "version 3 was rejected by the gate"),
        (4, "version 4 is champion already"),
        (9, "version 9 of 'assistant' is not in MLflow"),
    ],
)
def test_what_never_was_champion_or_was_rejected_or_is_champion_is_refused(home, to, said):
    with pytest.raises(RegistryError, match=said):
        version_to_return_to(to, ALIASES, REGISTRY, home)


def test_a_rejected_version_is_refused_even_if_the_ledger_names_it(home, monkeypatch):
    monkeypatch.setattr("flows.promote.champions_ever", lambda *_: {1, 2, 3, 4})
    assert find_version(REGISTRY, 3, home).verdict == "reject"
    with pytest.raises(RegistryError, match="version 3 was rejected"):
        version_to_return_to(3, ALIASES, REGISTRY, home)


@pytest.mark.parametrize(("to", "aliases"), [(None, {"champion": 4}), (None, {}), (1, {})])
def test_without_a_champion_or_one_before_there_is_nothing_to_return_to(home, to, aliases):
    with pytest.raises(RegistryError, match="has no champion before the present one"):
        version_to_return_to(to, aliases, REGISTRY, home)
