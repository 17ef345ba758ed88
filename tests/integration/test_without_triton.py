"""Where Triton cannot run: the loop ends with a champion that was verified in-process, and says it is not served."""

import json
import os
import subprocess

import pytest
from loop_under_test import ANSWER, Loop, prompts_from
from servers import skip_without_triton

from flows.finished import find_finished
from tasks.contracts.store import MANIFEST
from tasks.serving.routing import read_routing
from tasks.serving.tritonserver import stop_tritonserver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A loop whose serving environment is an empty folder, and of which no service runs."""
    folder = tmp_path_factory.mktemp("without-triton")
    (folder / "no-serving").mkdir()
    loop = Loop(folder)
    loop.environment["LLM_RETRAIN_SERVING_ENV"] = str(folder / "no-serving")
    return loop


@pytest.fixture(scope="module")
def first(loop):
    """What the first run printed, as a person sees it."""
    done = loop.command("run", "--reason", "first")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


@pytest.fixture(scope="module")
def again(loop, first):
    """The same run once more."""
    return loop.json("run")


def test_too_few_evaluation_rows_are_said_before_anything_is_trained(loop):
    loop.write_rows(loop.folder / "few.jsonl", prompts_from(loop.stdlib / "unittest", 6), "Read the text.")
    held_out = "data.evaluation_sources=[{kind: files, path: few.jsonl}]"  # counts from the working directory
    done = loop.command("run", "--set", held_out)
    assert done.returncode == 1, done.stderr
    assert "gate.min_examples is 30 and there are 6 rows to evaluate on" in " ".join(done.stderr.split())
    assert "add rows to data.evaluation_sources or lower gate.min_examples" in " ".join(done.stderr.split())
    assert not (loop.home.store / "adapter").exists(), "nothing was trained"
    assert not (loop.home.store / "servable").exists(), "nothing was built"


def test_the_run_says_that_the_champion_is_not_being_served(loop, first):
    shown = " ".join(first.stdout.split())
    assert "Promoted: version 1 is champion; it is not being served" in shown
    assert "3 golden prompts answered as evaluated, in-process; not being served" in shown
    assert "curl" not in shown
    assert "there is no serving environment at" in " ".join(first.stderr.split())


def test_mlflow_does_not_talk_into_the_terminal(first):
    for chatter in ("Successfully registered model", "Created version"):
        assert chatter not in first.stdout + first.stderr


def test_alias_routing_and_ledger_name_the_champion(loop, first):
    assert loop.aliases()["champion"] == 1
    assert read_routing(loop.home.routing_file("assistant")).champion == "assistant-v1"
    assert (loop.home.triton_repository / "assistant-v1" / "config.pbtxt").is_file()
    assert loop.ledger()[-1] == ("promoted", None, 1)


def test_the_same_run_again_is_recognised_and_says_how_to_start_serving(again):
    assert (again["status"], again["version"], again["verdict"], again["exit_code"]) == ("unchanged", 1, "promote", 0)
    assert again["served"]["served"] is False
    assert "not being served: there is no serving environment at" in again["served"]["note"]
    assert "make serving" in again["served"]["note"] and "llm-retrain up" in again["served"]["note"]
    assert again["curl"] == ""
    assert again["scores"]["candidate"]["rougeL"]["value"] > again["scores"]["base"]["rougeL"]["value"]


def test_status_warns_when_another_version_answers_than_the_champion(loop, again):
    table = loop.home.routing_file("assistant")
    right = table.read_text()
    table.write_text(json.dumps(json.loads(right) | {"champion": "assistant-v7", "version": 7}))
    try:
        assert "Warning: version 1 is champion, and assistant-v7 answers" in loop.command("status").stdout
    finally:
        table.write_text(right)


def test_where_triton_can_run_the_same_command_serves_the_champion_again(loop, again):
    """As after a reboot: nothing runs, the routing table is wrong, and there is nothing to train."""
    skip_without_triton()
    table = loop.home.routing_file("assistant")
    table.write_text(json.dumps(json.loads(table.read_text()) | {"champion": "assistant-v7", "version": 7}))
    nowhere = loop.environment.pop("LLM_RETRAIN_SERVING_ENV")
    if "LLM_RETRAIN_SERVING_ENV" in os.environ:
        loop.environment["LLM_RETRAIN_SERVING_ENV"] = os.environ["LLM_RETRAIN_SERVING_ENV"]
    try:
        served = loop.json("run")
        assert (served["status"], served["served"]["served"]) == ("unchanged", True), served["served"]
        assert read_routing(table).champion == "assistant-v1"
        said = subprocess.run(["bash", "-c", served["curl"]], capture_output=True, text=True, check=True)
        assert json.loads(said.stdout)["text_output"] == served["question"]["answer"] == ANSWER
        still = loop.json("run")
        assert still["served"]["note"].endswith("as before")
        stop_tritonserver(loop.home)
        started = loop.json("run")
        assert started["served"]["note"].endswith("it was started or loaded by this command")
        assert loop.ask(served["question"]["prompt"])["served_by"] == "assistant-v1"
    finally:
        stop_tritonserver(loop.home)
        loop.environment["LLM_RETRAIN_SERVING_ENV"] = nowhere


def test_a_lost_report_hides_nothing_else_and_the_work_is_done_again(loop, again, monkeypatch):
    """Last, because it takes away what the others read."""
    monkeypatch.setenv("LLM_RETRAIN_SERVING_ENV", loop.environment["LLM_RETRAIN_SERVING_ENV"])  # or it would serve
    version = loop.json("history")["versions"][0]
    assert version["score"] > 0
    assert find_finished(loop.config, loop.home) is not None
    (manifest,) = (loop.home.store / "report").glob(f"*/{MANIFEST}")
    report = manifest.parent / "report.json"
    report.write_text("{")
    assert loop.json("history")["versions"][0] == version | {"score": None}
    assert "(rougeL –)" in loop.command("status").stdout
    assert find_finished(loop.config, loop.home) is None
