"""The evaluation report as an artifact: `report.json` for the gate, `report.md` for people, answers side by side."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.contracts.artifacts import EvalReport, Predictions
from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.jsonl import write_jsonl
from tasks.contracts.metric_names import BUILT_IN, brought_along
from tasks.contracts.store import Store, code_digest, entry_at
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.general_set import score_general
from tasks.evaluation.markdown import render
from tasks.evaluation.scoring import SYSTEMS, Scored, score_systems
from tasks.evaluation.side_by_side import SideBySide, count_learned, read_side_by_side

_SCORED = TypeAdapter(EvalReport)


def build_report(
    predictions: dict[str, Predictions],
    evaluation: EvaluationSection,
    store: Store,
    evidence: Evidence = Evidence(),  # noqa: B008
) -> EvalReport:
    """Score the systems on the rows they all answered, or find the report that did.

    Args:
        predictions: system ("base", "champion" if any, "candidate") → its answers.
        evaluation: metrics, and how intervals and p-values are made.
        store: where the report is kept.
        evidence: what else it is made of.

    Raises:
        EvaluationError: a system is missing, the systems did not answer the same rows in the same order, a file of
            training rows is lost, or the champion was trained on all of the rows.
    """
    ordered = {system: predictions[system] for system in SYSTEMS if system in predictions}
    unknown = set(predictions) - set(ordered)
    if unknown:
        raise EvaluationError(f"{sorted(unknown)[0]!r} is not a system; expected {', '.join(SYSTEMS)}")
    context = {
        "predictions": {system: answered.digest for system, answered in ordered.items()},
        "evaluation": evaluation.model_dump(mode="json"),
        **evidence.digests(),
    }
    inputs = {
        **context,
        "code": code_digest("tasks/evaluation", "tasks/contracts"),
        "libraries": {name: version(name) for name in ("numpy", "sacrebleu")},
        "brought_along": [brought_along(name) for name in evaluation.metrics if name not in BUILT_IN],
    }

    def write(directory: Path) -> dict[str, Any]:
        rows = read_side_by_side(ordered, *evidence.champion_learned)
        return write_report(directory, rows, score_systems(rows, evaluation), evaluation, context, evidence)

    return load_report(store.produce("report", inputs, write).path)


def write_report(
    directory: Path,
    rows: SideBySide,
    scored: Scored,
    evaluation: EvaluationSection,
    context: dict[str, Any],
    evidence: Evidence = Evidence(),  # noqa: B008
) -> dict[str, Any]:
    """Write `report.json`, `report.md`, `predictions.jsonl` and, if it was asked, `general.jsonl`; return their facts.

    Args:
        directory: where to; exists.
        rows: prompts, references and answers.
        scored: scores, differences, slices and signature.
        evaluation: how they were scored.
        context: what the report was made of; stands in it as it is.
        evidence: what else it says.
    """
    general, part = score_general(evidence.general, evaluation) if evidence.general else (None, None)
    report = EvalReport(
        path=directory,
        digest="",
        examples=len(rows.ids),
        confidence=evaluation.confidence,
        leaked_rows=count_learned(rows, evidence.trained_on),
        memorised=evidence.memorised,
        preferences=evidence.preferences,
        general=part,
        **{name: value for name, value in scored._asdict().items() if name != "of_rows"},
    )
    facts = asdict(report)
    del facts["path"], facts["digest"]
    # Not canonical JSON: the order of systems and metrics is that of the tables that people see.
    text = json.dumps({**facts, "context": context}, indent=1, ensure_ascii=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.md").write_text(render(rows, scored, evaluation.confidence), encoding="utf-8")
    records = zip(rows.records(), scored.of_rows, strict=True)
    write_jsonl(directory / "predictions.jsonl", ({**record, "scores": scores} for record, scores in records))
    if general is not None:
        write_jsonl(directory / "general.jsonl", general.records())
    values = {
        system: {metric: interval.value for metric, interval in metrics.items()}
        for system, metrics in scored.scores.items()
    }
    return {"examples": len(rows.ids), "scores": values}


def load_report(directory: Path) -> EvalReport:
    """Read a finished report.

    Raises:
        EvaluationError: the directory holds no complete report.
    """
    try:
        facts = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        del facts["context"]
        return _SCORED.validate_python({**facts, "path": directory, "digest": entry_at(directory).digest})
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise EvaluationError(f"{directory} holds no complete evaluation report: {error!r}") from error
