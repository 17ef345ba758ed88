"""The two proofs above all others, and what leads to them: a bad candidate is stopped, a bad promotion is reversed.

One loop, real servers, a tiny model. The tests build on each other in this order: version 1 is promoted, version 2 is
rejected, version 3 is inconclusive and promoted by hand, two broken versions are refused, and one command goes back.
"""

import json
import shutil
import subprocess

import pytest
from loop_under_test import ANSWER, prompts_from, running_loop
from servers import skip_without_triton

from tasks.contracts.jsonl import read_jsonl, write_jsonl
from tasks.contracts.store import Store
from tasks.registry.connection import connect
from tasks.serving.triton_client import repository_index
from tasks.serving.tritonserver import running_triton

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


WINDOW = 64
"""How many of the last requests the monitor judges here."""


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    skip_without_triton()
    with running_loop(tmp_path_factory.mktemp("loop")) as running:
        yield running


@pytest.fixture(scope="module")
def promoted(loop):
    """The first run: version 1 becomes champion."""
    outcome = loop.json("run", "--reason", "first")
    return {**outcome, "answers_written": _answers_written(loop)}


def test_a_better_candidate_is_promoted_and_the_printed_curl_line_works(loop, promoted):
    assert (promoted["status"], promoted["version"], promoted["exit_code"]) == ("promoted", 1, 0)
    assert promoted["differences"]["base"]["rougeL"]["low"] > 0
    assert loop.aliases() == {"champion": 1}
    said = subprocess.run(["bash", "-c", promoted["curl"]], capture_output=True, text=True, check=True)
    answer = json.loads(said.stdout)
    assert answer["text_output"] == promoted["question"]["answer"] == ANSWER
    assert answer["served_by"] == "assistant-v1"
    assert loop.ledger() == [(event, None, 1) for event in ("started", "loaded", "verified", "routed", "promoted")]


def test_mlflow_holds_the_loss_curve_the_data_the_answers_and_the_model(loop, promoted):
    client = connect(loop.config.registry, loop.home)
    run = client.get_run(promoted["places"]["mlflow_run"])
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert len(losses) == 80
    assert losses[-1].value < losses[0].value / 2
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"train rows", "eval rows"}
    assert len(run.outputs.model_outputs) == 1, "the run's page leads to the model"
    table = json.loads((loop.home.mlflow_artifacts / run.info.run_id / "artifacts/predictions.json").read_text())
    assert table["columns"] == ["slice", "prompt", "reference", "base", "candidate"]
    assert len(table["data"]) == promoted["examples"]
    version = client.get_model_version("assistant", "1")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    names = {path.relative_to(model.artifact_location.removeprefix("file://")).parts[0]
             for path in _files_below(model.artifact_location)}  # fmt: skip
    files = {"README.md", "config.json", "decision.json", "dataset.json"}
    assert names == {"adapter", "tokenizer", "report", "review", *files}


def test_the_same_command_again_does_nothing_and_names_the_version(loop, promoted):
    ledger = loop.ledger()
    again = loop.json("run")
    assert (again["status"], again["version"], again["verdict"]) == ("unchanged", 1, "promote")
    assert again["curl"] == promoted["curl"]
    assert loop.ledger() == ledger
    assert len(loop.mlflow_runs()) == 1, "no second MLflow run was opened"


def test_a_schedule_or_a_drift_that_changes_nothing_leaves_a_run_with_its_reason(loop, promoted):
    """With a configuration that says nothing it does as the champion's run did, and not as the quickstart."""
    asked = {"config": {}, "like_champion": True, "reason": "drift of everything"}
    flow_run = loop.wait_for_run(loop.start_run("retrain/by-hand", asked))
    assert flow_run["state"]["name"] == "Unchanged", flow_run["state"]["message"]
    newest = loop.mlflow_runs()[0].data.tags
    assert (newest["llm_retrain.verdict"], newest["llm_retrain.version"]) == ("unchanged", "1")
    assert newest["llm_retrain.reason"] == "drift of everything"
    assert len(loop.ledger()) == 5, "nothing was rolled out"


def test_a_bad_candidate_is_stopped(loop, promoted):
    """Trained on answers with shuffled letters, judged on the same held-out rows."""
    crippled = loop.folder / "crippled.jsonl"
    scrambled = "rnuetR fo eht ownt muebrs sm."
    write_jsonl(crippled, ({**row, "output": scrambled} for row in read_jsonl(loop.rows_path)))
    question = promoted["question"]["prompt"]
    before = loop.ask(question)
    sources = json.dumps([{"kind": "files", "path": str(crippled)}])
    with loop.client_in_a_loop(question, pause_seconds=1.0) as answers:  # it trains meanwhile
        rejected = loop.json("run", "--set", f"data.sources={sources}", "--reason", "crippled", expected_exit=3)
    assert (rejected["status"], rejected["version"]) == ("rejected", 2)
    assert any("significantly worse" in reason for reason in rejected["reasons"])
    assert loop.aliases() == {"champion": 1}
    assert loop.ask(question) == before
    assert answers, "the client asked"
    assert {answer.get("served_by") for answer in answers} == {"assistant-v1"}
    run = loop.mlflow_run(rejected["places"]["mlflow_run"])
    assert run.data.tags["llm_retrain.verdict"] == "reject"
    assert "significantly worse" in run.data.tags["llm_retrain.reasons"]
    flow_run = loop.api.get(f"/flow_runs/{rejected['places']['prefect_flow_run']}").json()
    assert flow_run["state"]["name"] == "Rejected"
    assert "significantly worse" in flow_run["state"]["message"]
    assert _artifact(loop, "gate-verdict")["data"].startswith("# Verdict: reject")


def test_stored_answers_of_the_champion_were_reused(loop, promoted):
    """Version 2 was judged against base and version 1, which were not asked again: only its own answers are new."""
    written = _answers_written(loop)
    assert len(promoted["answers_written"]) == 2, "base and version 1"
    assert promoted["answers_written"].items() <= written.items(), "not written again"
    new = {servable for servable, _ in written.keys() - promoted["answers_written"].keys()}
    crippled = connect(loop.config.registry, loop.home).get_model_version("assistant", "2")
    assert new == {crippled.tags["servable_digest"]}


def test_a_run_from_the_prefect_form_goes_through_and_a_tie_is_inconclusive(loop, promoted):
    config = loop.deployment("retrain/by-hand")["parameters"]["config"]
    config["training"] = {**config["training"], "seed": 99}
    flow_run = loop.wait_for_run(
        loop.start_run("retrain/by-hand", {"config": config, "reason": "another seed, from the form"})
    )
    assert flow_run["state"]["name"] == "Inconclusive", flow_run["state"]["message"]
    assert loop.aliases() == {"champion": 1, "challenger": 3}
    run = loop.mlflow_run(connect(loop.config.registry, loop.home).get_model_version("assistant", "3").run_id)
    assert run.data.tags["llm_retrain.reason"] == "another seed, from the form"


def test_a_rejected_version_cannot_be_promoted_by_hand(loop, promoted):
    done = loop.command("promote", "2")
    assert done.returncode == 1
    assert "version 2 was rejected by the gate" in done.stderr
    assert loop.aliases()["champion"] == 1


def test_promotion_by_hand_switches_without_an_error_for_clients(loop, promoted):
    question = promoted["question"]["prompt"]
    with loop.client_in_a_loop(question) as answers:
        flow_run = loop.wait_for_run(loop.start_run("promote/by-hand", {"version": 3, "reason": "operator says so"}))
        loop.ask(question)
    assert flow_run["state"]["type"] == "COMPLETED", flow_run["state"]["message"]
    assert loop.aliases() == {"champion": 3, "previous": 1}
    assert [answer for answer in answers if "error" in answer] == []
    served_by = [answer["served_by"] for answer in answers]
    assert served_by == sorted(served_by), "once switched, never back"
    assert set(served_by) == {"assistant-v1", "assistant-v3"}


def test_rollback_from_the_ui_and_promotion_from_the_command_line(loop, promoted):
    ended = loop.wait_for_run(loop.start_run("rollback/by-hand", {"reason": "operator says so", "to": 1}))
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    assert loop.aliases()["champion"] == 1
    assert loop.ask(promoted["question"]["prompt"])["served_by"] == "assistant-v1"
    assert loop.json("promote", "3")["version"] == 3
    assert loop.aliases() == {"champion": 3, "previous": 1}


def test_a_version_that_does_not_load_is_undone_and_nobody_notices(loop, promoted):
    version = _register_copy(loop, "broken", _truncate_the_weights)
    _assert_undone(loop, promoted, version, r"does not load|cannot be loaded")


def test_a_version_that_answers_wrongly_is_undone_and_nobody_notices(loop, promoted):
    """It loads, and what is stored as its own evaluated answers are the crippled version's."""
    version = _register_copy(loop, "impostor", _change_nothing, answers_of="2")
    _assert_undone(loop, promoted, version, "golden prompt 1 of 3 was answered")


def test_one_command_goes_back(loop, promoted):
    question = promoted["question"]["prompt"]
    with loop.client_in_a_loop(question) as answers:
        back = loop.json("rollback", "--reason", "night shift")
    assert (back["version"], back["served"]) == (1, True)
    assert loop.aliases()["champion"] == 1
    assert "previous" not in loop.aliases()
    assert loop.ask(question)["served_by"] == "assistant-v1"
    assert [answer for answer in answers if "error" in answer] == []
    assert loop.ledger()[-1] == ("rolled back", 3, 1)
    refused = loop.command("rollback")
    assert refused.returncode == 1
    assert "has no champion before the present one" in refused.stderr
    rejected = loop.command("rollback", "--to", "2")
    assert rejected.returncode == 1
    assert "version 2 was rejected by the gate" in rejected.stderr


def test_what_was_rolled_back_is_not_promoted_again_by_the_next_run(loop, promoted):
    again = loop.json("run", "--set", "training.seed=99", "--reason", "nightly", expected_exit=3)
    assert (again["status"], again["version"], again["overruled"]) == ("unchanged", 3, "rolled back")
    assert again["reasons"] == ["Nothing was judged anew: what counts is that a person decided against version 3."]
    assert loop.aliases()["champion"] == 1


def test_requests_of_the_same_kind_start_nothing(loop, promoted):
    asyncio, unittest = loop.stdlib / "asyncio", loop.stdlib / "unittest"
    for prompt in prompts_from(asyncio, 45, skip=50) + prompts_from(unittest, 27, skip=30):
        loop.ask(prompt)
    verdict = _monitor(loop)
    assert verdict["state"]["name"] == "No drift", verdict["state"]["message"]
    assert loop.runs_of("retrain/on-drift") == []


def test_requests_of_another_kind_start_a_retraining_with_its_reason(loop, promoted):
    import sklearn

    more = prompts_from(loop.stdlib / "http", 20)
    write_jsonl(loop.rows_path, [*read_jsonl(loop.rows_path), *({"instruction": p, "output": ANSWER} for p in more)])
    library = prompts_from(_folder_of(sklearn), WINDOW)
    assert len(library) == WINDOW
    for prompt in library:
        loop.ask(prompt)
    verdict = _monitor(loop)
    assert verdict["state"]["name"] == "Drift", verdict["state"]["message"]
    started = _wait_for_first_run(loop, "retrain/on-drift")
    ended = loop.wait_for_run(started["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    assert ended["state"]["name"] in {"Inconclusive", "Rejected", "Promoted"}, "new rows: it trained"
    assert "drift of llm-retrain.model.assistant (version 1)" in ended["parameters"]["reason"]
    newest = loop.mlflow_runs()[0].data.tags
    assert newest["llm_retrain.kind"] == "retrain"
    assert "drift of llm-retrain.model.assistant" in newest["llm_retrain.reason"]


def test_one_drift_starts_one_retraining(loop, promoted):
    assert loop.json("monitor")["drifted"] is False, "the requests were judged before"
    assert len(loop.runs_of("retrain/on-drift")) == 1


def test_status_and_history_tell_the_story(loop, promoted):
    status = loop.json("status")
    assert {service["name"]: service["state"] for service in status["services"]} == dict.fromkeys(
        ("prefect", "mlflow", "triton", "worker"), "running"
    )
    assert status["champion"]["version"] == 1
    assert status["answers"] == "assistant-v1"
    history = loop.json("history")
    verdicts = {line["version"]: line["verdict"] for line in history["versions"]}
    assert (verdicts[1], verdicts[2], verdicts[3]) == ("promote", "reject", "inconclusive")
    assert [event for event, *_ in loop.ledger()].count("undone") == 2
    assert history["ledger_problems"] == [], "every move of the day is chained"
    shown = loop.command("history")
    assert "Ledger" in shown.stdout
    assert "rolled back" in shown.stdout


def test_two_versions_are_compared_on_the_rows_that_both_answered(loop, promoted):
    facts = loop.json("compare", "1", "3")
    assert [version["version"] for version in facts["versions"]] == [1, 3]
    assert facts["rows"]["same"] is True
    assert facts["paired"]["examples"] == facts["versions"][1]["examples"]
    assert "training.seed" in {line["key"] for line in facts["settings"]["different"]}


def test_the_running_server_can_be_what_is_evaluated(loop, promoted):
    """The last of all, since it registers one more version."""
    done = loop.command("run", "--set", "evaluation.through=server", "--set", "evaluation.concurrency=2")
    assert done.returncode in (0, 3, 4), done.stderr
    by_server, by_process = {}, {}
    for entry in Store(loop.home.store).entries("predictions"):
        found = by_server if "server" in entry.inputs else by_process
        lines = read_jsonl(entry.path / "predictions.jsonl")
        kept = [(line["id"], line["answer"], line.get("new_tokens"), line.get("finish_reason")) for line in lines]
        found[entry.inputs["servable"], entry.inputs.get("eval_rows")] = kept
    assert len(by_server) >= 2, "base and candidate, and the champion where it is another"
    assert all(by_process[asked] == answers for asked, answers in by_server.items())
    assert not list(loop.home.triton_repository.glob("_*"))
    assert promoted["question"]["prompt"] and loop.ask(promoted["question"]["prompt"])["served_by"]


def _answers_written(loop):
    """Return when the answers of each servable to each set of rows were written, by the file's time and inode."""
    return {
        (entry.inputs["servable"], entry.inputs["eval_rows"]): (status.st_mtime_ns, status.st_ino)
        for entry in Store(loop.home.store).entries("predictions")
        for status in [(entry.path / "predictions.jsonl").stat()]
    }


def _monitor(loop):
    """Run the monitor's deployment over the last requests."""
    config = loop.deployment("monitor/every-15-minutes")["parameters"].get("config", {})
    flow_run = loop.wait_for_run(
        loop.start_run("monitor/every-15-minutes", {"config": {**config, "window_requests": WINDOW}})
    )
    assert flow_run["state"]["type"] == "COMPLETED", flow_run["state"]["message"]
    return flow_run


def _wait_for_first_run(loop, deployment):
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        runs = loop.runs_of(deployment)
        if runs:
            return runs[0]
        time.sleep(0.5)
    raise AssertionError(f"no run of {deployment} was scheduled; see {loop.home.logs / 'prefect.log'}")


def _register_copy(loop, name, change, answers_of="1"):
    """Register another version made of version 1's servable, changed, with manifests that vouch for it and for the
    answers of a version as its own."""
    client = connect(loop.config.registry, loop.home)
    original, answering = (client.get_model_version("assistant", number) for number in ("1", answers_of))
    source = loop.home.store / "servable" / original.tags["servable"]
    answers = loop.home.store / "predictions" / answering.tags["predictions"] / "predictions.jsonl"

    def write_servable(out):
        shutil.copytree(source / "model", out / "model")
        (out / "model" / "name.txt").write_text(name)
        change(out / "model")
        return {"name": name}

    def write_predictions(out):
        shutil.copyfile(answers, out / "predictions.jsonl")
        return {"name": name}

    store = Store(loop.home.store)
    servable = store.produce("servable", {"test": name}, write_servable)
    predictions = store.produce("predictions", {"servable": servable.digest, "test": name}, write_predictions)
    tags = dict(original.tags) | {
        "servable": servable.path.name,
        "servable_digest": servable.digest,
        "predictions": predictions.path.name,
        "verdict": "promote",
    }
    return int(client.create_model_version("assistant", original.source, original.run_id, tags=tags).version)


def _truncate_the_weights(model):
    weights = model / "1" / "genai" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:100])


def _change_nothing(model):
    assert (model / "config.pbtxt").is_file()


def _assert_undone(loop, promoted, version, sentence):
    """Promote a broken version: it is undone, the champion answers all along, and the ledger says what happened."""
    aliases, answered_by = loop.aliases(), loop.ask(promoted["question"]["prompt"])["served_by"]
    with loop.client_in_a_loop(promoted["question"]["prompt"]) as answers:
        done = loop.command("promote", str(version))
    assert done.returncode == 1
    import re

    assert re.search(sentence, done.stderr), done.stderr
    assert loop.aliases() == aliases
    assert answers, "the client asked"
    assert {answer.get("served_by") for answer in answers} == {answered_by}
    assert loop.ledger()[-1] == ("undone", aliases["champion"], version)
    index = repository_index(running_triton(loop.home))
    assert index[answered_by]["state"] == "READY"
    left = index.get(f"assistant-v{version}", {"state": "UNAVAILABLE"})
    assert left["state"] == "UNAVAILABLE", "what was not rolled out is not left loaded"
    assert not (loop.home.triton_repository / f"assistant-v{version}").exists()


def _artifact(loop, key):
    found = loop.api.get(f"/artifacts/{key}/latest")
    assert found.status_code == 200, found.text
    return found.json()


def _files_below(location):
    from pathlib import Path

    return [path for path in Path(location.removeprefix("file://")).rglob("*") if path.is_file()]


def _folder_of(module):
    from pathlib import Path

    return Path(module.__file__).parent
