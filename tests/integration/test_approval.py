"""A person decides: a real form in a real Prefect, a real worker, a tiny model; only what was shown counts.

The tests build on each other in this order: version 1 is refused at the command line, version 2 changes while it
waits, is asked about again, and is approved in the form.
"""

import json
import time

import httpx
import pytest
from loop_under_test import ANSWER, running_loop
from servers import skip_without_triton

from tasks.registry.connection import connect

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

DEPLOYMENT = "approve/by-hand"
GOOD = {"decision": "approve", "reason": "read ten answers, all good", "name": "Ada"}


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    skip_without_triton()
    with running_loop(tmp_path_factory.mktemp("approval")) as running:
        yield running


@pytest.fixture(scope="module")
def first(loop):
    """The first run: version 1 is better than the base model, and waits."""
    return loop.json("run", *AFTER_A_PERSON, "--reason", "first", expected_exit=5)


AFTER_A_PERSON = ("--set", "promotion.approval=person")
OTHER_SEED = (*AFTER_A_PERSON, "--set", "training.seed=99")


def test_a_better_candidate_waits_and_a_suspended_run_shows_the_report_and_a_typed_form(loop, first):
    assert (first["status"], first["version"], first["verdict"]) == ("waiting", 1, "promote")
    assert first["served"] is None and loop.aliases() == {"challenger": 1}
    assert loop.ledger() == [("waiting", None, 1)]
    assert loop.json("status")["waiting"] == {"version": 1, "until": first["waits_until"], "status": "open"}
    asking = suspended_run(loop)
    assert asking["parameters"]["version"] == 1
    assert first["places"]["approval_flow_run"] == asking["id"]
    schema = run_input(loop, asking, "schema")
    assert set(schema["required"]) == {"decision", "reason", "name"}
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    shown = run_input(loop, asking, "description")
    assert "**Version 1** passed the gate against the base model" in shown and "primary metric" in shown
    page = loop.api.get("/artifacts/approval-v1/latest").json()
    assert page["flow_run_id"] == asking["id"] and page["data"].startswith("# Verdict: promote")
    assert tag(loop, 1).startswith("waits for a decision until")


def test_the_same_run_again_waits_for_the_same_and_asks_nobody_twice(loop, first):
    again = loop.json("run", *AFTER_A_PERSON, expected_exit=5)
    assert (again["status"], again["version"], again["waits_until"]) == ("waiting", 1, first["waits_until"])
    assert len(loop.runs_of(DEPLOYMENT)) == 1 and len(loop.ledger()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"decision": "perhaps", "reason": "a reason", "name": "Ada"},
        {"decision": "approve", "name": "Ada"},
        {"decision": "approve", "reason": "", "name": "Ada"},
        {"decision": "approve", "reason": "   ", "name": "Ada"},
        None,
    ],
)
def test_a_form_that_is_not_filled_in_is_refused_and_goes_on_waiting(loop, first, wrong):
    asking = suspended_run(loop)
    answered = resume(loop, asking, wrong)
    assert answered.json().get("status") == "REJECT", answered.text
    assert suspended_run(loop)["id"] == asking["id"] and loop.aliases() == {"challenger": 1}


def test_a_form_that_somebody_cancelled_is_shown_again_by_the_next_run(loop, first):
    cancelled = suspended_run(loop)
    state = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
    assert loop.api.post(f"/flow_runs/{cancelled['id']}/set_state", json=state).is_success
    assert loop.json("run", *AFTER_A_PERSON, expected_exit=5)["waits_until"] == first["waits_until"]
    assert suspended_run(loop)["id"] != cancelled["id"]


def test_what_was_refused_is_not_promoted_by_the_next_run_and_its_form_is_closed(loop, first):
    asking = suspended_run(loop)
    assert loop.json("reject", "1", "--reason", "too curt", "--name", "Ada")["served"] is None
    ended = loop.wait_for_run(asking["id"])
    assert (ended["state"]["name"], ended["state"]["message"]) == ("Decided", "refused by Ada: too curt")
    assert loop.ledger()[-1] == ("refused", None, 1)
    assert tag(loop, 1) == "refused by Ada: too curt"
    again = loop.json("run", *AFTER_A_PERSON, expected_exit=3)
    assert (again["status"], again["version"], again["overruled"]) == ("unchanged", 1, "refused")
    assert loop.aliases() == {"challenger": 1}
    closed = loop.command("approve", "1", "--reason", "changed my mind")
    assert closed.returncode == 1
    assert "version 1 was refused before (too curt)" in closed.stderr


def test_an_approval_of_what_changed_since_it_was_shown_promotes_nothing(loop, first):
    assert loop.json("run", *OTHER_SEED, "--reason", "second", expected_exit=5)["version"] == 2
    asking = suspended_run(loop)
    report = loop.home.store / "report" / version(loop, 2).tags["report"] / "report.json"
    genuine = report.read_text()
    facts = json.loads(genuine)
    facts["scores"]["candidate"]["rougeL"]["value"] = 0.99
    report.write_text(json.dumps(facts))
    accept(loop, asking, GOOD)
    ended = loop.wait_for_run(asking["id"])
    report.write_text(genuine)
    assert ended["state"]["type"] == "FAILED", ended["state"]
    assert "version 2 is not any more what was shown: its report" in ended["state"]["message"]
    assert loop.aliases() == {"challenger": 2}
    assert loop.ledger()[-1] == ("lapsed", None, 2)


def test_it_is_asked_again_and_the_approved_version_serves(loop, first):
    again = loop.json("run", *OTHER_SEED, "--reason", "asked again", expected_exit=5)
    assert (again["status"], again["version"]) == ("waiting", 2)
    asking = suspended_run(loop)
    accept(loop, asking, GOOD)
    ended = loop.wait_for_run(asking["id"])
    assert ended["state"]["name"] == "Approved", ended["state"]
    assert loop.aliases() == {"champion": 2}
    moves = [event for event, *_ in loop.ledger()][-6:]
    assert moves == ["approved", "started", "loaded", "verified", "routed", "promoted"]
    line = json.loads(loop.home.ledger.read_text().splitlines()[-1])
    assert line["why"] == "approved by Ada: read ten answers, all good"
    answer = loop.ask(again["samples"][0]["prompt"])
    assert (answer["served_by"], answer["text_output"]) == ("assistant-v2", ANSWER)
    assert loop.json("status")["waiting"] is None
    used_up = loop.command("approve", "2", "--reason", "once more")
    assert used_up.returncode == 1 and "version 2 was approved before" in used_up.stderr
    asks_late = loop.wait_for_run(
        loop.start_run(DEPLOYMENT, {"version": 2, "request": asking["parameters"]["request"]})
    )
    assert asks_late["state"]["name"] == "Decided"


def suspended_run(loop):
    """The one run that asks."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        asking = [run for run in loop.runs_of(DEPLOYMENT) if run["state"]["name"] == "Suspended"]
        if asking:
            assert len(asking) == 1
            return asking[0]
        time.sleep(0.5)
    raise AssertionError([(run["name"], run["state"]) for run in loop.runs_of(DEPLOYMENT)])


def run_input(loop, run, suffix):
    """What Prefect's UI makes the form from."""
    keys = run["state"]["state_details"]["run_input_keyset"]
    found = loop.api.get(f"/flow_runs/{run['id']}/input/{keys[suffix]}")
    assert found.status_code == 200, found.text
    return found.json()


def resume(loop, run, values) -> httpx.Response:
    """What the button Resume sends."""
    return loop.api.post(f"/flow_runs/{run['id']}/resume", json={"run_input": values} if values is not None else {})


def accept(loop, run, values):
    answered = resume(loop, run, values)
    assert answered.json()["status"] == "ACCEPT", answered.text


def version(loop, number):
    return connect(loop.config.registry, loop.home).get_model_version("assistant", str(number))


def tag(loop, number):
    return version(loop, number).tags["approval"]
