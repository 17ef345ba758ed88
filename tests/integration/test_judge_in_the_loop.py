"""A judge that a promotion needs, in a whole run of a tiny model: down, then asked again, and people after it."""

import csv
import io
import json

import pytest
from fake_judge import as_object, fake_judge
from loop_under_test import ANSWER, Loop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def prefers_the_right_one(shown):
    first, second = (shown[name] == ANSWER for name in ("answer_A", "answer_B"))
    return as_object("tie" if first == second else "A" if first else "B")


@pytest.fixture(scope="module")
def judge():
    with fake_judge(prefers_the_right_one) as server:
        yield server


@pytest.fixture(scope="module")
def loop(tmp_path_factory, judge):
    """A loop without Triton, whose promotions need the judge."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "no-serving").mkdir()
    loop = Loop(folder)
    loop.environment |= {"LLM_RETRAIN_SERVING_ENV": str(folder / "no-serving"), "JUDGE_KEY": "s3cret"}
    loop.settings["evaluation"]["judge"] = {"url": judge.url, "model": "fake", "key_variable": "JUDGE_KEY"}
    loop.settings["gate"] = {"judge": "require"}
    loop.settings_path.write_text(json.dumps(loop.settings))  # JSON is YAML
    return loop


@pytest.fixture(scope="module")
def without_verdict(loop, judge):
    """A run while the judge refuses everybody."""
    judge.script = [(401, {})] * 10_000
    return loop.json("run", expected_exit=4)


@pytest.fixture(scope="module")
def judged(loop, judge, without_verdict):
    """The same run again, once the judge answers."""
    judge.script = []
    return loop.json("run")


def test_a_key_that_is_missing_is_said_before_anything_is_trained(loop):
    done = loop.command("run", "--set", "evaluation.judge.key_variable=NO_SUCH_KEY")
    assert done.returncode == 2, done.stderr
    assert "evaluation.judge.key_variable is 'NO_SUCH_KEY'" in " ".join(done.stderr.split())
    assert not (loop.home.store / "adapter").exists()


def test_a_judge_that_refuses_leaves_the_verdict_open_and_promotes_nothing(loop, without_verdict):
    assert (without_verdict["status"], without_verdict["version"]) == ("inconclusive", 1)
    assert any("refuses questions to 'fake' (HTTP 401)" in reason for reason in without_verdict["reasons"])
    assert "champion" not in without_verdict["places"] and not loop.home.ledger.exists()


def test_the_same_run_asks_the_judge_again_and_trains_nothing_anew(loop, judged):
    assert (judged["status"], judged["version"]) == ("promoted", 2)
    assert len(list((loop.home.store / "adapter").glob("[!.]*"))) == 1
    rows = judged["examples"]
    said = f"fake preferred the candidate's answer on {rows} of {rows} rows and that of base on 0"
    assert rows >= 30 and any(said in reason for reason in judged["reasons"])
    metrics = loop.mlflow_run(judged["places"]["mlflow_run"]).data.metrics
    assert metrics["judge/candidate_vs_base/share"] == 1.0 and metrics["judge/candidate_vs_base/questions"] == 2 * rows
    page = (loop.home.store / "review").glob("*/review.html")
    assert any("Preferred by the judge: fake" in each.read_text() for each in page)


def test_the_key_was_sent_and_stands_nowhere(loop, judge, judged):
    assert {headers["authorization"] for headers in judge.headers} == {"Bearer s3cret"}
    files = [path for path in loop.home.root.rglob("*") if path.is_file() and path.stat().st_size < 5_000_000]
    assert len(files) > 50
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_once_judged_the_run_is_finished_and_nobody_is_asked(loop, judge, judged):
    asked = len(judge.bodies)
    again = loop.json("run")
    assert (again["status"], again["version"], len(judge.bodies)) == ("unchanged", 2, asked)


def test_people_rate_the_version_and_every_list_shows_it(loop, judged):
    sheet = loop.folder / "sheet.csv"
    assert loop.json("ratings", "export", "2", "--rows", "6", "--out", str(sheet))["rows"] == 6
    rows = list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"), newline="")))
    for row in rows:
        row["preference"] = "A" if ANSWER in row["answer A"] else "B"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    read = loop.json("ratings", "read", str(sheet), "--by", "Ann")
    assert (read["preference"]["wins"], read["rated"], read["preference"]["p_better"]) == (6, 6, 0.5**6)
    said = "People (Ann) preferred the candidate to base on 6 of 6 rows"
    assert said in loop.json("history")["versions"][0]["preferred"][0]
    assert said in " ".join(loop.command("compare", "1", "2").stdout.split())
