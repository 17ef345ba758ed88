"""A home with registered versions on a real MLflow: stored answers, reports and rows, and no training."""

from flows.comparison import compare_versions
from tasks.contracts.artifacts import Predictions
from tasks.contracts.config import RetrainConfig
from tasks.contracts.evaluation_config import EvaluationSection, GateSection
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of, write_jsonl
from tasks.contracts.store import Store
from tasks.data.rows import build_row
from tasks.evaluation.report import build_report
from tasks.registry.connection import connect
from tasks.registry.tracking import tracked_run
from tasks.registry.versions import find_version

METRICS = ("rougeL", "chrf", "exact_match")
CONFIG = RetrainConfig(
    evaluation=EvaluationSection(resamples=200, randomisations=1000, metrics=METRICS),
    gate=GateSection(guarded_metrics=("chrf",)),
)
ROWS = 12


def row_of(number, answer=None, topic="function"):
    question = {"role": "user", "content": f"What does {topic} number {number} do?"}
    reply = {"role": "assistant", "content": answer or f"Return item number {number} of the list."}
    return build_row([question, reply], "test", "all")


class Registry:
    """A home with a registered model, and what its versions are made of."""

    def __init__(self, folder):
        self.home = Home(folder / "home")
        self.store = Store(self.home.store)
        self.client = connect(CONFIG.registry, self.home)
        self.client.create_registered_model(CONFIG.registry.model_name)

    def dataset(self, train, evaluation):
        def write(out):
            for split, rows in (("train", train), ("eval", evaluation)):
                write_jsonl(out / f"{split}.jsonl", sorted(rows, key=lambda row: row["id"]))
            return {"train_rows": len(train), "eval_rows": len(evaluation)}

        return self.store.produce("dataset", {"rows": [row["id"] for row in (*train, *evaluation)]}, write)

    def answers(self, who, rows, answer):
        def write(out):
            lines = [
                {
                    "id": row["id"],
                    "messages": row["messages"][:-1],
                    "reference": row["messages"][-1]["content"],
                    "answer": answer(number),
                    "seconds": 0.25,
                }
                for number, row in enumerate(rows)
            ]
            facts = {"seconds": 3.0, "servable_bytes": 40_000_000}
            return {"rows": write_jsonl(out / "predictions.jsonl", lines), **facts}

        entry = self.store.produce("predictions", {"who": who, "rows": [row["id"] for row in rows]}, write)
        return entry, Predictions(entry.path, entry.digest, entry.facts["rows"], 3.0, 40_000_000)

    def register(self, who, answer, train, evaluation, champion_before="none", rank=8):
        dataset = self.dataset(train, evaluation)
        entry, answered = self.answers(who, evaluation, answer)
        _, base = self.answers("base", evaluation, lambda number: f"It does {number} things.")
        report = build_report({"base": base, "candidate": answered}, CONFIG.evaluation, self.store)
        config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"rank": rank})})
        with tracked_run(config, self.home, "test", {}) as run:
            tags = {
                **dict.fromkeys(("servable", "servable_digest"), digest_of(who)),
                "dataset": dataset.key,
                "dataset_digest": dataset.digest,
                "predictions": entry.key,
                "report": report.path.name,
                "verdict": "promote",
                "baseline": "base",
                "engine": "onnx",
                "champion_before": champion_before,
                "eval_digest": digest_of([row["id"] for row in evaluation]),
                "gate_digest": "x",
            }
            made = self.client.create_model_version(
                CONFIG.registry.model_name, "file:///nowhere", run.run_id, tags=tags
            )
        return find_version(CONFIG.registry, int(made.version), self.home)

    def compare(self, first, second):
        return compare_versions(first, second, CONFIG, self.home)


EVALUATION = [row_of(number) for number in range(ROWS)]
TRAINING = [row_of(number, topic="class") for number in range(20)]
GOOD = "Return item {} of the list.".format
POOR = "It does {} things, maybe.".format
