"""A move that was left half way is ended in aliases and ledger, without asking any server."""

import pytest

from flows import recovery
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.ledger import append_to_ledger, overruled_versions, read_ledger, unfinished_move

CONFIG = RetrainConfig()
BEFORE = {"champion": 2, "challenger": 3}


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A home whose promotion of version 3 has no end; the aliases are those that the test puts into the dictionary."""
    home, aliases = Home(tmp_path), {}
    append_to_ledger(home, "promoted", "assistant", None, 2, "first")
    intent = {"outcome": "promoted", "aliases": BEFORE}
    append_to_ledger(home, "started", "assistant", 2, 3, "nightly", intent=intent)
    monkeypatch.setattr(recovery, "read_aliases", lambda *_: dict(aliases))
    monkeypatch.setattr(recovery, "write_aliases", lambda _registry, _home, wanted: aliases.update(wanted))
    return home, aliases


@pytest.mark.parametrize(("present", "event"), [({"champion": 3, "previous": 2}, "promoted"), (BEFORE, "undone")])
def test_the_alias_decides_how_it_ended(killed, present, event):
    home, aliases = killed
    aliases.update(present)
    assert recovery.end_unfinished(CONFIG, home) is True
    assert read_ledger(home, "assistant")[-1]["event"] == event
    assert unfinished_move(home, "assistant") is None
    assert recovery.end_unfinished(CONFIG, home) is False, "once"


def test_a_refusal_after_it_is_ended_is_not_forgotten(killed):
    """The other way round, the promotion's line would come after the refusal and take it back."""
    home, aliases = killed
    aliases.update(BEFORE)
    recovery.end_unfinished(CONFIG, home)
    append_to_ledger(home, "refused", "assistant", 2, 3, "no")
    recovery.end_unfinished(CONFIG, home)
    assert overruled_versions(home, "assistant") == {3: "refused"}
