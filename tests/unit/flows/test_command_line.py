"""The command line: one sentence for what a user can mend, and documented exit codes."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch
from urllib.request import proxy_bypass

import pytest
from click.testing import CliRunner

from flows import cli as cli_module
from flows.cli import cli
from flows.commands import run
from flows.commands.options import terminal as _terminal
from flows.monitor import state_name
from flows.outcome import Outcome, curl_line, one_line
from flows.retrain import check_room, one_at_a_time
from flows.terminal.outcome import headline, render_outcome
from flows.terminal.overview import disagreement
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.home import Home
from tasks.registry.ledger import append_to_ledger

COMMANDS = ["approve", "compare", "data", "doctor", "down", "history", "join", "monitor", "plan", "promote"]
COMMANDS += ["ratings", "reject", "rollback", "run", "status", "sweep", "up"]


def llm_retrain(*arguments, home):
    command = [str(Path(sys.executable).parent / "llm-retrain"), "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_help_names_every_command():
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert sorted(cli.commands) == COMMANDS
    assert all(command in shown.output for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--preset", "quikstart"], "--preset is 'quikstart'; expected one of"),
        (["run", "--set", "training.rnak=3"], "training.rnak is not a config key; did you mean rank?"),
        (["run", "--config", "nowhere.yaml"], "--config is 'nowhere.yaml', which cannot be read"),
        (["promote", "three"], "'three' is not a valid integer"),
        (["rollback", "--to", "two"], "'two' is not a valid integer"),
        (["compare", "3", "3"], "FIRST and SECOND are both version 3; expected two versions"),
        (
            ["monitor", "--set", "monitor.min_requests=500"],
            "monitor.min_requests is 500 but monitor.window_requests is",
        ),
        (["monitor", "--set", "monitor.alpha=0.0005"], "whose smallest p-value is not below monitor.alpha 0.0005"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(arguments, sentence, tmp_path):
    done = llm_retrain(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing was started or written"


def outcome(status, verdict, served=None, **more):
    return Outcome(status, verdict, 1, (), 30, {}, {}, (), served, {}, "", {}, **more)


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        ("promoted", "promote", 0),
        ("rejected", "reject", 3),
        ("inconclusive", "inconclusive", 4),
        ("waiting", "promote", 5),
        ("unchanged", "promote", 0),
        ("unchanged", "reject", 3),
        ("unchanged", "inconclusive", 4),
    ],
)
def test_exit_codes_tell_the_verdict_also_of_a_run_that_was_done_before(status, verdict, code):
    assert outcome(status, verdict).exit_code == code
    assert outcome(status, verdict).to_json()["exit_code"] == code


@pytest.mark.parametrize("verdict", ["promote", "inconclusive"])
def test_a_version_that_was_rolled_back_is_done_with_and_says_who_may_promote_it(verdict):
    back = outcome("unchanged", verdict, overruled="rolled back")
    assert back.exit_code == 3
    assert headline(back).endswith(
        "the model of version 1 was [bold yellow]rolled back[/] by a person, and becomes champion only by hand: "
        "llm-retrain promote 1"
    )
    assert "rolled back" not in headline(outcome("unchanged", verdict))


def test_a_version_that_a_person_refused_counts_as_rejected_and_says_so():
    refused = outcome("unchanged", "promote", overruled="refused")
    assert refused.exit_code == 3
    assert "was [bold yellow]refused[/] by a person" in headline(refused)


def test_a_version_that_waits_says_until_when_and_how_to_decide():
    waits = headline(outcome("waiting", "promote", waits_until="2026-11-25T09:30:00+00:00"))
    assert "until 11-25 09:30 UTC" in waits
    assert "llm-retrain approve 1 --reason …" in waits and "llm-retrain reject 1 --reason …" in waits


@pytest.mark.parametrize(
    ("status", "served", "said"),
    [
        ("promoted", {"served": False}, True),
        ("unchanged", {"served": False}, True),
        ("promoted", {"served": True}, False),
        ("rejected", None, False),
    ],
)
def test_the_headline_says_when_the_champion_is_not_being_served(status, served, said):
    assert ("not being served" in headline(outcome(status, "promote", served))) == said


def test_a_routing_that_does_not_follow_the_champion_is_said():
    serving = RetrainConfig().serving
    assert disagreement(3, "assistant-v3", serving) == disagreement(None, None, serving) == ""
    assert "version 3 is champion, and assistant-v2 answers" in disagreement(3, "assistant-v2", serving)
    assert "version 3 is champion, and nothing answers" in disagreement(3, None, serving)
    assert (
        disagreement(None, "assistant-v3", serving) == "assistant-v3 answers for assistant, and no version is champion"
    )


def test_a_proxy_of_the_user_is_gone_round_for_this_machine(home, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "internal.example")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    with patch.dict(os.environ), _terminal(home, as_json=True):
        assert proxy_bypass("127.0.0.1:4200") and proxy_bypass("internal.example")
        assert not proxy_bypass("elsewhere.example")


def test_a_second_retraining_of_a_home_says_so_and_waits(home, caplog):
    caplog.set_level("INFO", logger="llm_retrain")
    order = []

    def second():
        with one_at_a_time(home):
            order.append("second")

    thread = threading.Thread(target=second)
    with one_at_a_time(home):
        thread.start()
        deadline = time.monotonic() + 10
        while "retraining is under way" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
        order.append("first ended")
    thread.join(10)
    assert order == ["first ended", "second"]
    assert "another retraining is under way" in caplog.text


@pytest.mark.parametrize("text", ["plain", "it's 'quoted' \"twice\"", "a\nb $HOME `id` \\ !", "心肌梗死"])
def test_the_curl_line_carries_any_prompt_through_a_shell(text):
    line = curl_line([{"role": "user", "content": text}], RetrainConfig())
    *_, body = shlex.split(line)
    assert json.loads(body) == {"text_input": text}
    echoed = subprocess.run(["bash", "-c", line.replace("curl -s", "printf '%s\\n'")], capture_output=True, text=True)
    assert echoed.stdout.splitlines()[-1] == body


def test_a_conversation_goes_into_the_curl_line_whole():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    body = json.loads(shlex.split(curl_line(messages, RetrainConfig()))[-1])
    assert json.loads(body["messages"]) == messages


def test_what_would_steer_the_terminal_is_shown_and_not_obeyed():
    assert one_line("a \x1b[2J b \x9b31m") == "a \ufffd[2J b \ufffd31m"
    line = curl_line([{"role": "user", "content": "c \x9b31m 中"}], RetrainConfig())
    assert line.isprintable()
    assert json.loads(shlex.split(line)[-1])["text_input"] == "c \x9b31m 中"


def test_the_printed_curl_line_is_the_one_that_was_made(home, capsys):
    line = curl_line([{"role": "user", "content": "d[:key:] {1:ok:2} [bold]"}], RetrainConfig())
    shown = replace(outcome("unchanged", "promote"), curl=line, question={"prompt": "p", "answer": ":key:"})
    shown = replace(shown, scores={"candidate": {}}, differences={"base": {}})
    with _terminal(home, as_json=False) as console:
        render_outcome(console, shown, {})
    printed = capsys.readouterr().out
    assert line in printed
    assert "→ :key:" in printed


def test_a_state_directory_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = llm_retrain("down", home=tmp_path / "file" / "home")
    assert done.returncode == 1
    assert "cannot be used (Not a directory); point LLM_RETRAIN_HOME elsewhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_server_refuses_is_one_sentence_and_other_faults_are_not_hidden(monkeypatch, capsys):
    import httpx
    from mlflow.exceptions import MlflowException
    from prefect.exceptions import PrefectException

    def fail(error):
        def command(**_):
            raise error

        return command

    for error, said in (
        (MlflowException("quota reached"), "MLflow refused: quota reached; nothing is lost"),
        (
            httpx.ConnectError("refused"),
            "Prefect's server does not answer any more: refused; what was done until then is in",
        ),
        (PrefectException("locked"), "Prefect refused: locked; what was done until then is in"),
    ):
        monkeypatch.setattr(cli_module, "cli", fail(error))
        with pytest.raises(SystemExit) as ended:
            cli_module.main()
        assert ended.value.code == 1
        assert f"llm-retrain: {said}" in capsys.readouterr().err
    monkeypatch.setattr(cli_module, "cli", fail(KeyError("a fault of ours")))
    with pytest.raises(KeyError):
        cli_module.main()


def test_the_link_to_a_run_leads_to_the_server_that_has_it(home, monkeypatch):
    places = {"report": "r", "mlflow_experiment": "1", "mlflow_run": "abc", "prefect_flow_run": "def"}
    monkeypatch.setenv("LLM_RETRAIN_MLFLOW_PORT", "5999")
    monkeypatch.setenv("LLM_RETRAIN_PREFECT_PORT", "4299")
    own = RetrainConfig.model_validate({"registry": {"tracking_uri": "http://mlflow.example"}})
    assert run._links(own, home, places)["MLflow"] == "http://mlflow.example/#/experiments/1/runs/abc"
    ours = run._links(RetrainConfig(), home, places)["MLflow"]
    assert ours.startswith("http://127.0.0.1:5999/#/experiments/1/runs/abc")
    assert "llm-retrain up" in ours
    prefect = run._links(RetrainConfig(), home, places)["Prefect"]
    assert prefect.startswith("http://127.0.0.1:4299/runs/flow-run/def")


@pytest.mark.parametrize(
    ("result", "name"),
    [
        ({"drifted": False}, "No champion"),
        ({"drifted": False, "version": 1, "p_value": None}, "No verdict"),
        ({"drifted": False, "version": 1, "p_value": 0.4}, "No drift"),
        ({"drifted": True, "version": 1, "p_value": 0.001}, "Drift"),
    ],
)
def test_only_what_was_compared_is_called_free_of_drift(result, name):
    assert state_name(result) == name


def test_a_wrong_port_is_said_before_the_work(home, monkeypatch):
    monkeypatch.setenv("LLM_RETRAIN_MLFLOW_PORT", "80")
    with pytest.raises(EnvironmentProblem, match="LLM_RETRAIN_MLFLOW_PORT is '80'"), _terminal(home, as_json=True):
        pytest.fail("the work began")


def test_text_on_one_line_is_shortened_with_an_ellipsis():
    assert one_line("a\n  b") == "a b"
    assert one_line("x" * 200, 10) == "x" * 9 + "…"


def test_a_full_disk_is_said_before_anything_long_starts(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"has 1\.0 GB free and a run needs about 3 GB"):
        check_room(Home(tmp_path), free_bytes=lambda: 1_000_000_000)
    check_room(Home(tmp_path), free_bytes=lambda: 4_000_000_000)


def test_history_warns_of_a_ledger_that_was_changed_and_says_where(home):
    for version in (1, 2, 3):
        append_to_ledger(home, "promoted", "assistant", version - 1, version, "nightly")
    with patch.dict(os.environ):
        whole = CliRunner().invoke(cli, ["history"])
        assert whole.exit_code == 0, whole.output
        assert "Warning" not in whole.output
        whole_bytes = home.ledger.read_bytes()
        home.ledger.write_bytes(whole_bytes + b'{"event":"prom')
        torn = CliRunner().invoke(cli, ["history"])
        assert "A crash left this in the ledger" in torn.output and "line 4 cannot be read" in torn.output
        assert "Warning" not in torn.output
        home.ledger.write_bytes(whole_bytes.replace(b'"to":2', b'"to":9'))
        warned = CliRunner().invoke(cli, ["history"])
        facts = json.loads(CliRunner().invoke(cli, ["history", "--json"]).stdout)
    assert "Warning: the ledger" in warned.output and "was changed after it was written" in warned.output
    assert "line 3 does not follow from the line before it" in warned.output
    assert [(problem["line"], problem["breaks_chain"]) for problem in facts["ledger_problems"]] == [(3, True)]
    assert len(facts["ledger"]) == 3


def test_the_version_is_said():
    from importlib.metadata import version

    done = CliRunner().invoke(cli_module.cli, ["--version"])
    assert (done.exit_code, done.output.split()[-1]) == (0, version("llm-retrain"))


def test_what_a_person_decided_against_is_said_of_the_run_in_prefect_too():
    from flows.retrain import message_of

    said = message_of(outcome("unchanged", "promote", overruled="rolled back"))
    assert said == "the model of version 1 was rolled back by a person, and becomes champion by hand"
    assert message_of(outcome("unchanged", "promote")) == "version 1 already holds the result (promote)"


@pytest.mark.parametrize("content", [None, '{"messages": "no conversation"}\n'])
def test_a_general_set_that_cannot_be_used_is_said_before_anything_is_read(content, home, tmp_path):
    from flows.finished import find_finished
    from tasks.contracts.errors import ConfigError

    rows = tmp_path / "general.jsonl"
    if content is not None:
        rows.write_text(content)
    config = RetrainConfig.model_validate({"evaluation": {"general_path": str(rows)}})
    with pytest.raises(ConfigError, match=r"evaluation\.general_path"):
        find_finished(config, home)
    assert not home.store.exists()


def test_who_decides_is_this_machines_user_where_no_name_is_given(home, monkeypatch):
    import flows.approve as approval
    import tasks.registry.ledger as ledger

    told = []
    monkeypatch.setattr(ledger, "this_user", lambda: "uid 4711")
    monkeypatch.setattr(approval, "approve", lambda **given: told.append(given["decision"].name))
    monkeypatch.setattr("flows.commands.champion.recorded_flow", lambda _home: contextlib.nullcontext())
    done = CliRunner().invoke(cli_module.cli, ["reject", "3", "--reason", "too curt"])
    assert done.exit_code == 0 and told == ["uid 4711"], done.output
