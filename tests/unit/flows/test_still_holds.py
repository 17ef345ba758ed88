"""What a decision hangs on, asked again with the promotion lock held."""

from types import SimpleNamespace

import pytest

from flows import rollout
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import RegistryError, RolloutError
from tasks.contracts.home import Home
from tasks.registry.approvals import answer, ask
from tasks.registry.ledger import append_to_ledger

CONFIG = RetrainConfig()
VERSION = SimpleNamespace(
    name="assistant", version=3, servable_digest="same", servable_path=None, report_path=None, review_path=None
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Version 1 is champion; version 2 has the same model as version 3."""
    home = Home(tmp_path)
    append_to_ledger(home, "promoted", "assistant", None, 1, "first")

    def overruled(_registry, digest, _home):
        refused = rollout.overruled_versions(home, "assistant")
        return SimpleNamespace(version=2) if digest == "same" and 2 in refused else None

    monkeypatch.setattr(rollout, "find_overruled", overruled)
    return home


@pytest.fixture
def asked(home):
    """Version 3 was approved."""
    request = ask(VERSION, 1, CONFIG, "nightly", home)
    answer(request, "approved", "assistant", "good", "Ada", home)
    return request


def refuse_the_twin(home):
    append_to_ledger(home, "refused", "assistant", 1, 2, "no")


def test_a_model_that_a_person_decided_against_is_not_rolled_out_unless_it_is_champion(home):
    still = rollout.not_overruled(VERSION, CONFIG, home)
    still(1)
    refuse_the_twin(home)
    with pytest.raises(RolloutError, match="version 3 was not promoted: its model was refused as version 2"):
        still(1)
    still(3)


def test_nor_is_it_where_it_was_approved_before(home, asked):
    still = rollout.approved_still(asked, VERSION, CONFIG, home)
    still(1)
    refuse_the_twin(home)
    with pytest.raises(RolloutError, match="its model was refused as version 2"):
        still(1)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("refused", r"version 3 was refused before \(later\); .*llm-retrain promote 3 makes it champion all the same"),
        ("lapsed", r"the request for version 3 has lapsed: later"),
    ],
)
def test_an_approval_that_was_taken_back_or_has_lapsed_counts_no_more(home, asked, event, said):
    answer(asked, event, "assistant", "later", "Ada", home)
    with pytest.raises(RegistryError, match=said):
        rollout.approved_still(asked, VERSION, CONFIG, home)(1)


@pytest.mark.parametrize(("promoted", "said"), [(3, "and became champion"), (4, "lapsed: version 4 became champion")])
def test_nor_does_one_that_was_used_up(home, asked, promoted, said):
    append_to_ledger(home, "promoted", "assistant", 1, promoted, "meanwhile")
    with pytest.raises(RegistryError, match=said):
        rollout.approved_still(asked, VERSION, CONFIG, home)(promoted)
