"""What tests of roll-outs share: a real Triton and a real MLflow on sqlite, and versions of tiny models.

Each test has a stable name, and so a ledger and aliases, of its own.
"""

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from servers import free_ports, skip_without_triton
from tiny_model import make_tiny_base_model

from tasks.contracts.artifacts import BaseModelRef, RegisteredVersion
from tasks.contracts.config import RetrainConfig, ServingSection
from tasks.contracts.engine import load_engine
from tasks.contracts.errors import StoreError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.store import Store
from tasks.registry.aliases import read_aliases, write_aliases
from tasks.registry.connection import connect
from tasks.registry.ledger import append_to_ledger, read_ledger
from tasks.registry.versions import find_version
from tasks.serving.build import build_servable
from tasks.serving.routing import read_routing
from tasks.serving.triton_client import ask, repository_index, unload_model
from tasks.serving.tritonserver import ensure_triton, stop_tritonserver

PROMPTS = ["hello", "Return the sum of two numbers."]
NAMES = (f"assistant{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory):
    """A home with a running Triton, its ports, and two tiny models as the store holds them."""
    skip_without_triton()
    folder = tmp_path_factory.mktemp("rollout")
    home = Home(folder / "home")
    http_port, grpc_port, metrics_port = free_ports(3)
    serving = ServingSection(
        http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, max_new_tokens=8, golden_prompts=2
    )
    store = Store(home.store)
    bases = [make_tiny_base_model(folder / f"base{seed}", seed) for seed in (0, 1)]
    servables = [
        build_servable(BaseModelRef(base, base.name, "dir:tiny"), None, serving, store, folder / "build.log")
        for base in bases
    ]
    try:
        ensure_triton(home, serving)
        yield home, serving, [servable.path for servable in servables]
    finally:
        stop_tritonserver(home)


@dataclass
class Stage:
    """A stable name, and what can be seen of it."""

    home: Home
    config: RetrainConfig
    models: list[Any]
    address: Any

    @property
    def name(self):
        return self.config.serving.model_name

    def version(self, seed=0, change=None, answers_of=None, **tags) -> RegisteredVersion:
        """Register a version of its own: one of the two models, and a file that makes its digest another one."""
        store, label = Store(self.home.store), f"{self.name}-{next(NAMES)}"

        def write_servable(out):
            shutil.copytree(self.models[seed] / "model", out / "model")
            (out / "model" / "1" / "label.txt").write_text(label)
            if change:
                change(out / "model")
            return {}

        def write_predictions(out):
            engine = load_engine((answers_of or self.models[seed]) / "model" / "1", threads=1)
            rows = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
            write_jsonl(
                out / "predictions.jsonl",
                ({"id": str(n), "messages": m, "answer": engine.generate(m).text} for n, m in enumerate(rows)),
            )
            return {}

        servable = store.produce("servable", {"label": label}, write_servable)
        predictions = store.produce("predictions", {"servable": servable.digest}, write_predictions)
        client = connect(self.config.registry, self.home)
        found = {
            **dict.fromkeys(("dataset", "report"), "0" * 64),
            **dict.fromkeys(("dataset_digest", "eval_digest", "gate_digest"), "x"),
            "verdict": "promote",
            "baseline": "base",
            "engine": "onnx",
            "champion_before": "none",
            "servable": servable.key,
            "servable_digest": servable.digest,
            "predictions": predictions.key,
            **tags,
        }
        made = client.create_model_version(self.name, "file:///nowhere", tags=found)
        return find_version(self.config.registry, int(made.version), self.home)

    def switch(self, version, outcome="promoted", **judged):
        """Promote as a person does, or as a run whose candidate was judged against the champion `expected`."""
        from flows.rollout import not_overruled, switch_champion  # imports Prefect, so not where tests are collected

        champion = judged.get("expected", self.aliases().get("champion"))
        by_itself = judged and outcome == "promoted"
        still = not_overruled(version, self.config, self.home) if by_itself else None
        return switch_champion(version, self.config, self.home, "test", outcome, champion, still)

    def settle(self, **changes):
        """Return the aliases once everything agrees with them, under settings with these changes."""
        from flows.rollout import settle

        return settle(self.config.model_copy(update=changes), self.home)

    def roll_back(self, to=None):
        """What `llm-retrain rollback` does."""
        from flows.promote import version_to_return_to

        aliases = self.settle()
        target = version_to_return_to(to, aliases, self.config.registry, self.home)
        return self.switch(target, "rolled back", expected=aliases["champion"])

    def aliases(self):
        return read_aliases(self.config.registry, self.home)

    def loaded(self):
        index = repository_index(self.address)
        return {name for name, line in index.items() if name.startswith(self.name) and line["state"] == "READY"}

    def published(self):
        return {path.name for path in self.home.triton_repository.iterdir() if path.name.startswith(self.name)}

    def served_by(self):
        return ask(self.address, self.name, PROMPTS[0])["served_by"]

    def everything(self):
        """All that a roll-out changes."""
        routing = read_routing(self.home.routing_file(self.name))
        return routing, self.aliases(), self.loaded(), self.published(), self.served_by()

    def events(self):
        return [(line["event"], line["from"], line["to"]) for line in read_ledger(self.home, self.name)]


@pytest.fixture
def stage(rolled_out):
    """A fresh stable name on the running server."""
    home, serving, models = rolled_out
    name = next(NAMES)
    config = RetrainConfig.model_validate(
        {"serving": {**serving.model_dump(), "model_name": name}, "registry": {"model_name": name}}
    )
    connect(config.registry, home).create_registered_model(name)
    address = ensure_triton(home, config.serving)
    stage = Stage(home, config, models, address)
    yield stage
    with ThreadPoolExecutor() as together:  # each takes Triton two seconds, most of them waiting
        list(together.map(lambda loaded: unload_model(address, loaded, 60), stage.loaded()))


@pytest.fixture
def standing(stage):
    """Version 1 is previous, version 2 champion, version 3 challenger."""
    one, two, three = stage.version(), stage.version(seed=1), stage.version()
    stage.switch(one)
    stage.switch(two)
    write_aliases(stage.config.registry, stage.home, {"previous": 1, "champion": 2, "challenger": 3})
    assert stage.served_by() == f"{stage.name}-v2"
    return stage, one, two, three


def fail_in_the_ledger(monkeypatch, events=("promoted", "rolled back")):
    def append(home, event, *rest):
        if event in events:
            raise StoreError("injected in the ledger")
        append_to_ledger(home, event, *rest)

    monkeypatch.setattr("flows.rollout_steps.append_to_ledger", append)
