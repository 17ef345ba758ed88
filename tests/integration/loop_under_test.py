"""A whole loop on real parts with a tiny model: everything `llm-retrain up` starts, driven by the command line."""

import json
import os
import random
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect_under_test import PrefectApi
from servers import free_ports
from tiny_model import make_tiny_base_model

from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.data.sources.docstrings import functions_of
from tasks.serving.tritonserver import running_triton

ANSWER = "Return the sum of two numbers."
INSTRUCTION = "Write one sentence that says what this Python function does."
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain http: otherwise httpx reads all certificates of the system for each request, 50 ms of a processor."""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def prompts_from(directory: Path, count: int, skip: int = 0) -> list[str]:
    """Return short functions of a library, in an order of their own, each as a question."""
    functions = [function.code for function in functions_of(directory, max_code_chars=260)]
    random.Random(5).shuffle(functions)
    return [f"{INSTRUCTION}\n\n{code}" for code in functions[skip : skip + count]]


class Loop:
    """The state directory, its settings, and ways to drive and to watch it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.stdlib = Path(sysconfig.get_paths()["stdlib"])
        prefect, mlflow, http, grpc, metrics = free_ports(5)
        self.environment = {
            **os.environ,
            "LLM_RETRAIN_HOME": str(self.home.root),
            "LLM_RETRAIN_PREFECT_PORT": str(prefect),
            "LLM_RETRAIN_MLFLOW_PORT": str(mlflow),
            "COLUMNS": "160",
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("PREFECT_API_URL", None)
        self.api = PrefectApi(prefect)
        self.rows_path, self.eval_path = folder / "rows.jsonl", folder / "held-out.jsonl"
        asyncio, unittest = self.stdlib / "asyncio", self.stdlib / "unittest"
        self.write_rows(self.rows_path, prompts_from(asyncio, 50) + prompts_from(unittest, 30), ANSWER)
        self.write_rows(self.eval_path, prompts_from(self.stdlib / "email", 40), ANSWER)
        self.settings = {
            "base_model": {"source": f"dir:{make_tiny_base_model(folder / 'tiny')}"},
            "data": {
                "sources": [{"kind": "files", "path": str(self.rows_path)}],
                "evaluation_sources": [{"kind": "files", "path": str(self.eval_path)}],
                "train_rows": 200,
                "eval_rows": 40,
            },
            # What learns one answer to everything forgets all others, and the gate would say so.
            "evaluation": {"general": False},
            "training": {"learning_rate": 0.01, "epochs": 8, "rank": 8, "precision": "fp32", "device": "cpu"},
            "serving": {
                "http_port": http,
                "grpc_port": grpc,
                "metrics_port": metrics,
                "max_new_tokens": 16,
                "golden_prompts": 3,
            },
        }
        self.settings_path = folder / "loop.yaml"
        self.settings_path.write_text(yaml.safe_dump(self.settings))
        self.config = RetrainConfig.model_validate(self.settings)

    @staticmethod
    def write_rows(path: Path, prompts: list[str], answer: str) -> None:
        """Write instruction rows that all have the same answer, which a tiny model can learn."""
        write_jsonl(path, ({"instruction": prompt, "output": answer} for prompt in prompts))

    def command(self, *arguments: str, with_settings: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user does."""
        line = [str(Path(sys.executable).parent / "llm-retrain"), *arguments]
        if with_settings:
            line += ["--config", str(self.settings_path)]
        return subprocess.run(
            line, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=500, check=False
        )

    def json(self, *arguments: str, expected_exit: int = 0) -> Any:
        """Run a command with --json and return what it printed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == expected_exit, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return json.loads(done.stdout)

    def aliases(self) -> dict[str, int]:
        """Return alias → version as MLflow holds them."""
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.home.mlflow_database}")
        found = client.get_registered_model("assistant").aliases
        return {alias: int(version) for alias, version in found.items()}

    def mlflow_run(self, run_id: str) -> Any:
        """Return an MLflow run."""
        import mlflow

        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.home.mlflow_database}").get_run(run_id)

    def mlflow_runs(self) -> list[Any]:
        """Return all MLflow runs of the loop, newest first."""
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.home.mlflow_database}")
        experiment = client.get_experiment_by_name(self.config.registry.experiment)
        return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])

    def ask(self, prompt: str) -> dict[str, Any]:
        """Ask the stable name over Triton's own JSON protocol."""
        url = f"http://127.0.0.1:{self.settings['serving']['http_port']}/v2/models/assistant/generate"
        answered = httpx.post(url, json={"text_input": prompt}, timeout=60, verify=NO_CERTIFICATES)
        assert answered.status_code == 200, answered.text
        return answered.json()

    def ledger(self) -> list[tuple[str, int | None, int]]:
        """Return the ledger as (event, from, to)."""
        records = [json.loads(line) for line in self.home.ledger.read_text().splitlines()]
        return [(record["event"], record["from"], record["to"]) for record in records]

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment as Prefect holds it, for example "retrain/by-hand"."""
        found = self.api.get(f"/deployments/name/{name}")
        assert found.status_code == 200, found.text
        return found.json()

    def start_run(self, name: str, parameters: dict[str, Any]) -> str:
        """Start a run of a deployment through Prefect's API, as the form in its UI does."""
        deployment = self.deployment(name)
        body = {"parameters": deployment["parameters"] | parameters, "enforce_parameter_schema": True}
        created = self.api.post(f"/deployments/{deployment['id']}/create_flow_run", json=body)
        assert created.status_code == 201, created.text
        return created.json()["id"]

    def wait_for_run(self, run_id: str, seconds: float = 300) -> dict[str, Any]:
        """Wait until a flow run has ended and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = self.api.get(f"/flow_runs/{run_id}").json()
            if run["state"]["type"] in FINAL:
                return run
            time.sleep(0.5)
        raise AssertionError(f"flow run {run_id} is still {run['state']['name']}: see {self.home.logs / 'worker.log'}")

    def runs_of(self, deployment_name: str) -> list[dict[str, Any]]:
        """Return the flow runs of a deployment, newest first."""
        body = {
            "flow_runs": {"deployment_id": {"any_": [self.deployment(deployment_name)["id"]]}},
            "sort": "START_TIME_DESC",
        }
        return self.api.post("/flow_runs/filter", json=body).json()

    @contextmanager
    def client_in_a_loop(self, prompt: str, pause_seconds: float = 0.05) -> "Iterator[list[dict[str, Any]]]":
        """Ask the same question again and again while the block runs; every answer, or failure, is kept."""
        answers: list[dict[str, Any]] = []
        stop = threading.Event()

        def ask_on() -> None:
            while not stop.is_set():
                try:
                    answers.append(self.ask(prompt))
                except (AssertionError, httpx.HTTPError) as error:
                    answers.append({"error": str(error)})
                time.sleep(pause_seconds)

        thread = threading.Thread(target=ask_on)
        thread.start()
        try:
            yield answers
        finally:
            stop.set()
            thread.join()


@contextmanager
def running_loop(folder: Path) -> Iterator[Loop]:
    """Start the services of a fresh loop, and stop them whatever happens."""
    loop = Loop(folder)
    up = loop.command("up")
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        assert running_triton(loop.home) is not None, up.stdout
        monitor = loop.deployment("monitor/every-15-minutes")
        loop.api.patch(f"/deployments/{monitor['id']}", json={"paused": True})  # the tests say when it looks
        yield loop
    finally:
        down = loop.command("down", with_settings=False)
        assert down.returncode == 0, down.stderr
