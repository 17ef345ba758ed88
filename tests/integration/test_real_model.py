"""The quickstart's own model and data, on fewer rows: SmolLM2-135M-Instruct learns, and the int8 form shows it."""

import pytest
from servers import skip_without_triton

from tasks.contracts.config import RetrainConfig
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest
from tasks.evaluation.gate import decide
from tasks.evaluation.generation import generate_predictions
from tasks.evaluation.report import build_report
from tasks.serving.build import build_servable
from tasks.serving.repository import publish
from tasks.serving.triton_client import ask, load_model
from tasks.serving.tritonserver import ensure_triton
from tasks.training.adapter import TrainingJob, train_adapter
from tasks.training.base_model import prepare_base_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_smollm2_learns_from_docstrings_and_serves_what_was_evaluated(triton_home, triton_serving):
    skip_without_triton()
    config = RetrainConfig.model_validate(
        {
            "data": {"train_rows": 96, "eval_rows": 32, "sources": [{"kind": "docstrings", "max_code_chars": 200}]},
            "serving": {**triton_serving.model_dump(), "max_new_tokens": 32},
        }
    )
    store, log_path = Store(triton_home.store), triton_home.logs / "workers.log"
    base = prepare_base_model(config.base_model, triton_home, store)
    place = Place(triton_home, store, config.serving)
    dataset = build_dataset(ingest(config.data, place, config.data.sources), None, config.data, place, base)
    adapter = train_adapter(TrainingJob(base, dataset, config.training), store, log_path)
    servables = {
        "base": build_servable(base, None, config.serving, store, log_path),
        "candidate": build_servable(base, adapter, config.serving, store, log_path),
    }
    predictions = {name: generate_predictions(it, dataset, range(8), store, log_path) for name, it in servables.items()}
    report = build_report(predictions, config.evaluation, store)

    improvement = report.differences["base"]
    assert improvement["rougeL"].low > 0, f"96 rows are enough for a clear win, not {improvement}"
    assert improvement["bleu"].value > 0, f"and for more words in their places, not {improvement}"
    assert improvement["perplexity"].high < 0, f"the references are less of a surprise, not {improvement}"
    assert decide(report, config.gate, has_champion=False).verdict == "promote"
    assert [report.served[name].changed for name in ("base", "candidate")] == [0, 0]
    worse = {"base": predictions["base"], "champion": predictions["candidate"], "candidate": predictions["base"]}
    assert decide(build_report(worse, config.evaluation, store), config.gate, has_champion=True).verdict == "reject"

    address = ensure_triton(triton_home, config.serving)
    model = publish(
        servables["candidate"].model_directory, triton_home.triton_repository, triton_home.triton_incoming, "smollm2"
    )
    load_model(address, model.name, 120)
    for row in list(read_jsonl(predictions["candidate"].path / "predictions.jsonl"))[:8]:
        assert ask(address, model.name, row["messages"])["text"] == row["answer"]
