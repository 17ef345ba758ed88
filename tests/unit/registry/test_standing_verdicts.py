"""Which versions stand, in a real MLflow on sqlite: judged, rolled back, and what others registered."""

import logging

import pytest

from tasks.contracts.config import RegistrySection, RetrainConfig
from tasks.contracts.errors import RegistryError
from tasks.contracts.home import Home
from tasks.registry.aliases import aliases_after, aliases_back, read_aliases, write_aliases
from tasks.registry.connection import connect
from tasks.registry.ledger import append_to_ledger
from tasks.registry.versions import find_judged, find_overruled, find_version, gate_digest, list_versions

REGISTRY = RegistrySection()
NOBODY = "0" * 64


@pytest.fixture(scope="module")
def database(tmp_path_factory, empty_registry):
    """One for all tests here, and with it MLflow's connections to it."""
    home = empty_registry(Home(tmp_path_factory.mktemp("verdicts")))
    return connect(REGISTRY, home), home


@pytest.fixture
def registry(database):
    """An empty registered model and an empty ledger."""
    client, home = database
    home.ledger.unlink(missing_ok=True)
    client.create_registered_model("assistant")
    yield client, home
    client.delete_registered_model("assistant")


def register(client, verdict, model, champion_before="none", **other):
    tags = dict.fromkeys(("servable", "dataset", "predictions", "report"), NOBODY) | {
        "verdict": verdict,
        "baseline": "base",
        "engine": "onnx",
        "champion_before": champion_before,
        "servable_digest": model,
        "dataset_digest": "rows",
        "eval_digest": "held out",
        "gate_digest": "gate",
        **other,
    }
    made = client.create_model_version("assistant", "file:///nowhere", tags=tags, description=f"{verdict}: a reason")
    return int(made.version)


def judged(home, servable, eval_digest="held out", gate="gate"):
    found = find_judged(REGISTRY, servable, eval_digest, gate, home)
    return found and found.version


def test_a_version_that_was_rolled_back_stands_until_a_person_promotes_it_again(registry):
    client, home = registry
    one = register(client, "promote", "first")
    two = register(client, "promote", "second", champion_before=str(one))
    write_aliases(REGISTRY, home, {"champion": one})
    assert judged(home, "second") is None, "judged, and not rolled out yet"
    append_to_ledger(home, "promoted", "assistant", one, two, "nightly")
    append_to_ledger(home, "rolled back", "assistant", two, one, "it was rude")
    assert judged(home, "second") == two
    assert judged(home, "second", eval_digest="other rows") == two, "a person judged the model, not the rows"
    assert judged(home, "first") == one
    assert find_overruled(REGISTRY, "first", home) is None
    append_to_ledger(home, "promoted", "assistant", one, two, "a person")
    assert judged(home, "second") is None


def test_a_champion_with_the_same_servable_as_a_rolled_back_version_is_judged_as_any_other(registry):
    client, home = registry
    one = register(client, "promote", "first")
    two = register(client, "promote", "first", eval_digest="other rows")
    append_to_ledger(home, "rolled back", "assistant", one, two, "test")
    write_aliases(REGISTRY, home, {"champion": two})
    assert judged(home, "first", eval_digest="newest rows") is None


def test_what_others_registered_is_left_out_with_a_warning(registry, caplog):
    client, home = registry
    ours = register(client, "reject", "first")
    client.create_model_version("assistant", "file:///by-hand")
    register(client, "reject", "first", servable="../../../etc")
    with caplog.at_level(logging.WARNING):
        assert [version.version for version in list_versions(REGISTRY, home)] == [ours]
    assert "version 2 of 'assistant' was not registered by llm-retrain (no tag 'servable')" in caplog.text
    assert "servable='../../../etc'; expected 64 hex digits" in caplog.text
    with pytest.raises(RegistryError, match="was not registered by llm-retrain"):
        find_version(REGISTRY, 2, home)


def test_aliases_are_written_together_and_can_be_put_back(registry):
    client, home = registry
    one, two, three = (register(client, "promote", name) for name in ("first", "second", "third"))
    before = {"champion": two, "previous": one, "challenger": three}
    write_aliases(REGISTRY, home, before)
    after = aliases_after(before, three, two)
    assert after == {"champion": three, "previous": two}, "the challenger is champion"
    write_aliases(REGISTRY, home, after)
    assert read_aliases(REGISTRY, home) == after
    write_aliases(REGISTRY, home, before)
    assert read_aliases(REGISTRY, home) == before
    assert aliases_after(before, one, None) == {"champion": one, "challenger": three}


def test_what_is_put_back_leaves_a_challenger_that_was_registered_meanwhile():
    before = {"champion": 2, "previous": 1, "challenger": 3}
    assert aliases_back(before, {"champion": 3, "previous": 2}) == before, "the challenger that was promoted"
    assert aliases_back(before, {"champion": 3, "previous": 2, "challenger": 4}) == {**before, "challenger": 4}
    assert aliases_back({}, {"champion": 1}) == {}


def test_a_model_that_was_never_registered_has_no_aliases(database):
    assert read_aliases(RegistrySection(model_name="nobody"), database[1]) == {}


def test_a_version_that_waits_for_a_person_stands_while_it_is_asked_about(registry):
    client, home = registry
    one = register(client, "promote", "first")
    request = {
        "version": one,
        "champion": None,
        **dict.fromkeys(("servable", "report", "review", "serving", "registry"), "d"),
    }
    request |= {"asked": "2026-11-23T00:00:00+00:00", "expires": "2999-01-01T00:00:00+00:00"}
    append_to_ledger(home, "waiting", "assistant", None, one, "", "", approval={"request": request})
    waits = lambda: find_judged(REGISTRY, "first", "held out", "gate", home, waits=True)  # noqa: E731
    assert waits().version == one
    assert find_judged(REGISTRY, "first", "held out", "gate", home) is None, "nobody decides: it is rolled out"
    register(client, "promote", "first")
    assert waits().version == one, "of two with the same model, the one that is asked about"
    three = register(client, "promote", "second")
    write_aliases(REGISTRY, home, {"champion": three})
    assert waits() is None, "it was judged against no champion"


def test_verdicts_are_told_apart_by_who_answered_and_not_by_how_many_asked_at_a_time():
    def digest(**evaluation):
        return gate_digest(RetrainConfig.model_validate({"evaluation": evaluation}))

    assert digest(through="server") != digest()
    assert digest(through="server", concurrency=9, answer_timeout_seconds=1) == digest(through="server")
    assert digest(concurrency=9) == digest() != digest(asked_again=3)
    judge = {"url": "http://127.0.0.1:9/v1", "model": "m"}
    assert digest(judge=judge) == digest(judge={**judge, "fixed_sampling": True, "parallel": 2})
    assert digest(judge=judge) != digest(judge={**judge, "fixed_sampling": False})


def test_verdicts_are_told_apart_by_the_judge_and_not_by_how_it_is_asked():
    here = {"url": "http://127.0.0.1:9/v1", "model": "m"}

    def digest(gate="off", **judge):
        settings = {"evaluation": {"judge": judge}, "gate": {"judge": gate}}
        return gate_digest(RetrainConfig.model_validate(settings))

    assert digest() == gate_digest(RetrainConfig()) == digest(rows=77), "what no judge is told counts for nothing"
    assert len({digest(), digest(**here), digest("guard", **here), digest(**here, instructions="Be kind.")}) == 4
    assert digest(**here, parallel=9, retries=1, timeout_seconds=3) == digest(**here)
