"""`llm-retrain plan` says what a training would need and trains nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_model import make_tiny_base_model

from tasks.contracts.jsonl import write_jsonl

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    rows = folder / "rows.jsonl"
    write_jsonl(rows, ({"instruction": f"Say number {n}, and why.", "output": f"It is {n}."} for n in range(60)))
    settings = {
        "base_model": {"source": f"dir:{make_tiny_base_model(folder / 'tiny')}"},
        "data": {"sources": [{"kind": "files", "path": str(rows)}], "train_rows": 30, "eval_rows": 10},
        "gate": {"min_examples": 5},
        "training": {"precision": "fp32", "device": "cpu"},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(settings))
    return folder


def plan(place, *arguments):
    command = [
        str(Path(sys.executable).parent / "llm-retrain"),
        "plan",
        "--config",
        str(place / "plan.yaml"),
        *arguments,
    ]
    environment = {**os.environ, "LLM_RETRAIN_HOME": str(place / "home"), "COLUMNS": "120"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_script_gets_bytes_by_part_time_and_nothing_is_trained(place):
    done = plan(place, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["fits"] and facts["advice"] == []
    assert facts["total_bytes"] == max(sum(facts["memory"].values()), facts["loading_bytes"])
    assert facts["memory"]["activations"] > 0 and facts["seconds"] > 0
    assert not list((place / "home" / "store" / "adapter").glob("*"))


def test_a_plan_pays_for_no_prefect_and_no_mlflow(place):
    """They take seconds to import, and a plan has no flow and no run."""
    code = (
        "import sys; from flows.cli import cli; cli(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in ('prefect', 'mlflow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "plan", "--config", str(place / "plan.yaml"), "--json"]
    environment = {**os.environ, "LLM_RETRAIN_HOME": str(place / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_person_gets_a_table_and_a_verdict(place):
    done = plan(place, "--set", "training.method=full", "--set", "training.rank=4")
    assert done.returncode == 0, done.stderr
    assert "It fits" in done.stdout and "AdamW's moments" in done.stdout and "Time: about" in done.stdout
    assert "training.rank is 4 and changes nothing" in done.stderr
