"""`llm-retrain data build|show|diff|why|erase`, as a person and a script call them."""

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import cli
from flows.commands.data import data
from tasks.contracts.jsonl import digest_of_file
from tasks.contracts.store import Store

pytestmark = pytest.mark.slow

WORDS = ("river", "stone", "window", "garden", "letter", "engine", "music", "forest", "winter", "paper", "silver")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a data command in a home of its own and return what it printed, read as JSON if `--json` was asked for."""
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments):
        done = CliRunner().invoke(cli, ["data", *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


@pytest.fixture
def config(tmp_path):
    """Write a configuration over rows, one of them personal to Ada, one of them empty."""
    draw = random.Random(3)

    def passage(words):
        return " ".join(draw.choice(WORDS) + str(draw.randrange(90)) for _ in range(words))

    rows = [{"instruction": passage(30), "output": passage(8)} for _ in range(80)]
    rows += [
        {"instruction": f"Ada Lovelace asks {passage(20)}", "output": passage(8)},
        {"instruction": "x", "output": ""},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text("data:\n  sources: [{kind: files, path: rows.jsonl}]\n  eval_rows: 32\n")
    return tmp_path / "mine.yaml"


def test_build_prints_the_digest_and_an_accounting_that_adds_up(call, config):
    facts = call("build", "--config", config, "--json")
    assert facts["rows_read"] == 82 == facts["train_rows"] + facts["eval_rows"] + sum(facts["rejected"].values())
    assert facts["rejected"] == {"empty answer": 1}
    assert list(facts["origins"]) == ["data.sources"]
    shown = call("build", "--config", config)
    assert facts["digest"] in shown
    assert f"llm-retrain data show {facts['digest'][:12]}" in shown
    assert f"Found, made at {facts['made_at']}" in shown
    assert "rejected: empty answer" in shown


def test_build_says_each_time_when_fewer_rows_are_evaluated_than_were_asked_for(call, config, caplog):
    for _ in range(2):
        caplog.clear()
        facts = call("build", "--config", config, "--json")
        assert [message.partition(":")[0] for message in caplog.messages if "eval_rows" in message] == [
            f"data.eval_rows is 32, but {facts['eval_rows']} rows are evaluated"
        ]


def test_build_says_whether_it_made_the_version_or_found_it(call, config):
    assert [call("build", "--config", config, "--json")["made_anew"] for _ in range(2)] == [True, False]
    assert "Found" not in call("build", "--config", config, "--set", "data.eval_rows=31")


def test_the_steps_stand_in_their_order(call, config):
    steps = "data.cleaning=[{step: whitespace}, {step: unicode}, {step: repetition}]"
    facts = call("build", "--config", config, "--set", steps, "--json")
    assert [each["step"] for each in facts["steps"]] == ["whitespace", "unicode", "repetition", "conversation"]


def test_build_tells_of_its_own_steps_where_another_build_made_the_same_files(call, config):
    """Also where it is found in the store, and another build is newer."""
    digests = set()
    lines = [["unicode"], ["whitespace"], ["repetition"], ["unicode", "whitespace"]]
    for names in [*lines, *lines]:
        steps = f"data.cleaning=[{', '.join(f'{{step: {name}}}' for name in names)}]"
        facts = call("build", "--config", config, "--set", steps, "--json")
        assert [each["step"] for each in facts["steps"]] == [*names, "conversation"]
        digests.add(facts["digest"])
    assert len(digests) == 1


def test_build_tells_by_method_what_was_made_and_what_cleaning_made_of_it(call, config, tmp_path):
    (tmp_path / "words.tsv").write_text("asks\tada@example.com\n")
    augment = "data.augment={methods: [{method: synonyms, path: %s}], min_similarity: 0}" % (tmp_path / "words.tsv")
    settings = ("--set", augment, "--set", "data.cleaning=[{step: personal}]")
    shown = call("build", "--config", config, *settings)
    assert "Rows made by synonyms: 1 made, 56 nothing to change; 1 changed by personal" in shown
    assert "Trained on in all: 58 rows, 57 that were read and 1 that were made of them." in shown


def test_show_tells_versions_slices_lengths_and_rows(call, config, tmp_path):
    built = call("build", "--config", config, "--json")
    shown = call("show", built["digest"][:8], "--rows", 2, "--plot", tmp_path / "plot.svg")
    assert all(title in shown for title in ("Data versions", "Slices", "Prompts, characters", "Rows"))
    assert (tmp_path / "plot.svg").stat().st_size > 1_000
    facts = call("show", "--json")
    assert facts["digest"] == built["digest"]
    assert facts["profile"]["rows"] == {"training": 57, "made": 0, "evaluation": 24}
    assert facts["trained_on"] == 57
    assert "100.0%" in shown


def test_diff_counts_what_came_and_went(call, config):
    first = call("build", "--config", config, "--json")
    second = call("build", "--config", config, "--set", "data.train_rows=40", "--json")
    facts = call("diff", first["digest"], second["digest"], "--json")
    assert (len(facts["removed"]), facts["added"], facts["same"]) == (17, [], 64)
    assert "removed" in call("diff", first["digest"], second["digest"])


def test_why_and_erase_follow_a_record_through_the_versions(call, config):
    call("build", "--config", config, "--json")
    [seen] = call("why", "Ada Lovelace", "--json")["sightings"]
    assert (seen["where"] in ("train", "eval"), seen["models"]) == (True, [])
    assert f"kept, for {'training' if seen['where'] == 'train' else 'evaluation'}" in call("why", "Ada Lovelace")
    said = call("erase", seen["row"]["id"][:16], "--reason", "she asked")
    assert "no future version will have it" in said
    assert "What still holds it" in said
    again = call("build", "--config", config, "--json")
    assert again["rejected"] == {"empty answer": 1, "erased": 1}
    facts = call("why", seen["row"]["id"], "--json")
    assert facts["erased"][seen["row"]["id"]]["reason"] == "she asked"
    assert {each["where"] for each in facts["sightings"]} == {seen["where"]}
    said = call("why", seen["row"]["id"][:16])
    assert "On the list of erased records: erased on 20" in said
    assert "reason: she asked" in said


def test_erase_names_versions_row_sets_and_models_that_still_hold_the_record(call, config, monkeypatch):
    built = call("build", "--config", config, "--json")
    monkeypatch.setattr("flows.commands.data._models_by_version", lambda *_: {built["digest"]: [3, 4], "other": [5]})
    said = call("erase", "Ada Lovelace", "--reason", "she asked", "--json")
    held = said["held_by"]
    assert (held["versions"], held["models"]) == ([built["digest"]], [3, 4])
    assert len(held["row_sets"]) == 1
    assert (held["results"], held["ratings"], held["sources"]) == ([], [], [])
    assert "Lovelace" not in json.dumps(said["erased"])


def test_erase_names_adapters_that_learned_it_and_trainings_that_may_have(call, config, tmp_path):
    """Also those of a sweep's trials that were not the best: nobody registered them."""
    built = call("build", "--config", config, "--json")
    store = Store(tmp_path / "home" / "store")
    rows = digest_of_file(Path(built["path"]) / "train.jsonl")
    [seen] = call("why", "Ada Lovelace", "--json")["sightings"]
    line = json.dumps(seen["row"]) + "\n"
    replay = store.produce("replay", {}, lambda out: {"rows": (out / "train.jsonl").write_text(line)})
    replayed = digest_of_file(replay.path / "train.jsonl")  # a version's rows but for those that may not be replayed
    trained_on = [(rows, None), ("other", rows), ("other", replayed), ("other", None)]
    for inputs in ({"rows": each, "replay": again} for each, again in trained_on):
        store.produce("adapter", inputs, lambda out: {"written": (out / "adapter").write_text("weights")})
    stopped = store.root / ".checkpoints" / "0123456789ab"
    stopped.mkdir(parents=True)
    held = call("erase", "Ada Lovelace", "--reason", "she asked", "--json")["held_by"]
    saw = {entry.path for entry in store.entries("adapter") if {rows, replayed} & set(entry.inputs.values())}
    assert set(map(Path, held["adapters"])) == saw and len(saw) == 3
    assert held["unfinished_trainings"] == [str(stopped)]
    shown = call("erase", "Ada Lovelace", "--reason", "she asked")
    assert "Adapters trained on these versions" in shown and "Unfinished trainings" in shown


def test_erase_names_what_a_killed_build_left_of_the_record(call, config, tmp_path):
    call("build", "--config", config)
    [seen] = call("why", "Ada Lovelace", "--json")["sightings"]
    left = tmp_path / "home" / "store" / "dataset" / ".0123456789ab-killed"
    left.mkdir()
    (left / "train.jsonl").write_text(json.dumps(seen["row"]) + "\n")
    assert call("erase", "Ada Lovelace", "--reason", "she asked", "--json")["held_by"]["unfinished"] == [str(left)]
    shown = call("erase", "Ada Lovelace", "--reason", "she asked")
    assert "Unfinished or damaged" in shown and ".0123456789ab-killed" in "".join(shown.split())


def test_a_record_that_was_erased_before_is_said_and_nothing_is_changed(call, config, tmp_path):
    """Also where several spellings of it are found, and where nothing has it any more."""
    call("build", "--config", config)
    [seen] = call("why", "Ada Lovelace", "--json")["sightings"]
    call(
        "build", "--config", config, "--set", "data.cleaning=[{step: replace, name: x, pattern: asks, replacement: a}]"
    )
    call("erase", seen["row"]["id"], "--reason", "she asked")
    kept = (tmp_path / "home" / "erased.jsonl").read_text()
    again = call("erase", seen["row"]["id"], "--reason", "again")
    assert "was erased before (erased on 20" in again
    assert "What still holds it" in again
    assert "Ada Lovelace was erased before" in call("erase", "Ada Lovelace", "--reason", "again")
    shutil.rmtree(tmp_path / "home" / "store")
    assert "was erased before" in call("erase", seen["row"]["id"], "--reason", "again")
    facts = call("erase", seen["row"]["id"], "--reason", "again", "--json")["erased"]
    assert (facts["before"], facts["reason"]) == (True, "she asked")
    assert (tmp_path / "home" / "erased.jsonl").read_text() == kept


def test_a_piece_that_never_became_a_row_is_erased_by_its_text(call, config, tmp_path):
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"ask": "Grace Hopper"}\n')
    first = call("build", "--config", config, "--json")
    said = call("erase", "Grace Hopper", "--reason", "she asked")
    assert "no future version will have it" in said
    second = call("build", "--config", config, "--json")
    assert second["rejected"] == first["rejected"]
    [seen] = call("why", "Grace Hopper", "--json")["sightings"]
    assert seen["version"] == first["digest"] != second["digest"]
    assert seen["lines"] == [83]
    assert "rows.jsonl line 83" in " ".join(call("why", "Grace Hopper").replace("│", " ").split())


def test_a_source_that_cannot_be_read_is_said_before_a_base_model_is_prepared(tmp_path, monkeypatch):
    """Converting a base model for its tokenizer takes half a minute; this one is not even there."""
    monkeypatch.setenv("LLM_RETRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    settings = (
        "base_model.source=dir:/no/such/model",
        "data.cleaning=[{step: length, min_answer_tokens: 1}]",
        "data.sources=[{kind: sql, url_variable: NO_SUCH_URL, query: SELECT 1}]",
    )
    done = CliRunner().invoke(cli, ["data", "build", *(part for each in settings for part in ("--set", each))])
    assert "reads its database's address from NO_SUCH_URL, which is not set" in str(done.exception)


def test_a_record_nobody_has_is_said(call, config):
    call("build", "--config", config, "--json")
    assert "No data version has such a record, and none was read." in call("why", "no such thing")


def test_every_data_command_explains_itself():
    assert sorted(data.commands) == ["build", "diff", "erase", "show", "why"]
    assert all(command.help for command in data.commands.values())


def test_fewer_than_no_rows_is_one_sentence():
    done = CliRunner().invoke(cli, ["data", "show", "--rows", "-1"])
    assert done.exit_code == 2
    assert "-1 is not in the range x>=0" in done.output
