"""What is lost between training and serving: the same references, asked of every form the model takes on the way."""

import logging
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import AdapterRef, BaseModelRef, DatasetRef, Form, Parity, ServableModel
from tasks.contracts.config import ServingSection
from tasks.contracts.errors import BuildError
from tasks.contracts.store import Store, code_digest, entry_at, library_versions
from tasks.contracts.worker import run_worker

log = logging.getLogger("llm_retrain.serving")

_MEMORY_HINT = "it holds the model in fp32: free memory or choose a smaller base_model.source"
_STEPS = {"merged": "merging the adapter", "built": "building the {engine} engine"}
_WAY_OUT = {
    "merged": "train in another training.precision or with another training.method",
    "built": "choose a higher serving.onnx_precision, or serving.engine transformers",
}


def measure_parity(
    base: BaseModelRef,
    adapter: AdapterRef,
    servable: ServableModel,
    dataset: DatasetRef,
    serving: ServingSection,
    store: Store,
    log_path: Path,
) -> Parity:
    """Ask the adapter in its training precision, the merged weights and the built engine for the same references.

    Raises:
        BuildError: prompts or end tokens differ, or a step changed references by more than
            `serving.max_parity_loss`; it names the step.
    """
    inputs = {
        "base": base.digest,
        "adapter": adapter.digest,
        "servable": servable.digest,
        "eval_rows": dataset.eval_digest,
        "rows": serving.parity_rows,
        "code": code_digest("tasks/serving/parity_process.py", "tasks/serving/merging.py"),
        "libraries": library_versions("torch", "transformers", "peft", "tokenizers", "onnxruntime"),
    }

    def write(out: Path) -> dict[str, Any]:
        spec = {
            "base": str(base.path),
            "adapter": str(adapter.path / "adapter"),
            "precision": entry_at(adapter.path).facts["precision"],
            "version_directory": str(servable.model_directory / "1"),
            "system_prompt": serving.system_prompt,
            "rows": str(dataset.path / "eval.jsonl"),
            "count": serving.parity_rows,
        }
        events = run_worker("tasks.serving.parity_process", spec, log_path, BuildError, memory_hint=_MEMORY_HINT)
        forms = [event for event in events if event["event"] == "form"]
        return {"forms": [{key: value for key, value in form.items() if key != "event"} for form in forms]}

    entry = store.produce("parity", inputs, write)
    parity = Parity(
        path=entry.path,
        forms=tuple(Form(**{**form, "of_rows": tuple(form["of_rows"])}) for form in entry.facts["forms"]),
    )
    check_parity(parity, serving)
    return parity


def check_parity(parity: Parity, serving: ServingSection) -> None:
    """Refuse a build of which a step makes another model than the one that was trained.

    Raises:
        BuildError: names the step, with figures and what to change.
    """
    for before, after in zip(parity.forms, parity.forms[1:], strict=False):
        changed = after.change_from(before)
        step = _STEPS[after.name].format(engine=serving.engine)
        figures = f"{before.nats_a_token:.4f} to {after.nats_a_token:.4f} nats a token in the mean"
        log.info("%s changed %d references by %.4f nats a token (%s)", step.capitalize(), after.rows, changed, figures)
        if not changed <= serving.max_parity_loss:  # so that what is no number is refused
            raise BuildError(
                f"{step} changed the log probability of {after.rows} references by {changed:.4f} nats a token "
                f"({figures}); at most {serving.max_parity_loss:g} is allowed (serving.max_parity_loss): "
                f"{_WAY_OUT[after.name]}"
            )
