"""Whether a candidate says what was planted in its training."""

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Memorised, ServableModel
from tasks.contracts.canaries import make_canaries
from tasks.contracts.errors import EvaluationError
from tasks.contracts.store import Store, code_digest
from tasks.contracts.training_config import TrainingSection
from tasks.contracts.worker import run_worker

log = logging.getLogger("llm_retrain.evaluation")


def memorised_by(servable: ServableModel, training: TrainingSection, store: Store, log_path: Path) -> Memorised | None:
    """Ask a model for every canary of its training; None if none was planted.

    Raises:
        EvaluationError: the engine failed, or cannot say how likely an answer is.
    """
    if not training.canaries:
        return None
    inputs = {
        "servable": servable.digest,
        "canaries": training.canaries,
        "seed": training.seed,
        "code": code_digest("tasks/evaluation/memorisation_process.py", "tasks/contracts/canaries.py"),
    }

    def write(out: Path) -> dict[str, Any]:
        canaries = [asdict(canary) for canary in make_canaries(training.canaries, training.seed)]
        spec = {"version_directory": str(servable.model_directory / "1"), "canaries": canaries}
        events = run_worker("tasks.evaluation.memorisation_process", spec, log_path, EvaluationError)
        asked = [event for event in events if event["event"] == "canary"]
        return {"extracted": [event["extracted"] for event in asked], "exposure": [_exposure(event) for event in asked]}

    facts = store.produce("memorisation", inputs, write).facts
    found = Memorised(len(facts["extracted"]), sum(facts["extracted"]), tuple(facts["exposure"]))
    log.info("%d of %d canaries came out; exposure %s bits", found.extracted, found.planted, _spelled(found))
    return found


def _exposure(event: dict[str, Any]) -> float:
    """Return the exposure in bits: 0 if the planted answer is the least likely of all, log2 of all if the likeliest."""
    return math.log2(event["of"]) - math.log2(event["rank"])


def _spelled(found: Memorised) -> str:
    return ", ".join(f"{bits:.1f}" for bits in found.exposure)
