"""The evaluation report as an artifact: `report.json` for the gate, `report.md` for people, answers side by side."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import EvalReport, Interval, Predictions, interval_from_json
from tasks.contracts.config import EvaluationSection
from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import digest_of_file, write_jsonl
from tasks.contracts.store import Store, code_digest, entry_at
from tasks.evaluation.markdown import render
from tasks.evaluation.scoring import SYSTEMS, Scored, score_systems
from tasks.evaluation.side_by_side import SideBySide, read_side_by_side


def build_report(
    predictions: dict[str, Predictions],
    evaluation: EvaluationSection,
    store: Store,
    learned: Path | None = None,
    replayed: Path | None = None,
) -> EvalReport:
    """Score the systems on the rows they all answered, or find the report that did.

    Args:
        predictions: system ("base", "champion" if any, "candidate") → its answers.
        evaluation: resamples, confidence and seed.
        store: where the report is kept.
        learned: the champion's `train.jsonl`: nobody is judged on rows that stand in it.
        replayed: the rows that it could replay beside them, if any: likewise.

    Raises:
        EvaluationError: a system is missing, the systems did not answer the same rows in the same order, or the
            champion was trained on all of them.
    """
    ordered = {system: predictions[system] for system in SYSTEMS if system in predictions}
    unknown = set(predictions) - set(ordered)
    if unknown:
        raise EvaluationError(f"{sorted(unknown)[0]!r} is not a system; expected {', '.join(SYSTEMS)}")
    known = [path for path in (learned, replayed) if path is not None]
    for path in known:
        if not path.is_file():
            raise EvaluationError(f"the champion's training rows at {path} are lost")
    context = {
        "predictions": {system: answered.digest for system, answered in ordered.items()},
        "evaluation": evaluation.model_dump(mode="json"),
        "champion_learned": digest_of_file(learned) if learned else None,
        "champion_replayed": digest_of_file(replayed) if replayed else None,
    }
    inputs = {
        **context,
        "code": code_digest("tasks/evaluation", "tasks/contracts"),
        "libraries": {name: version(name) for name in ("rouge-score", "sacrebleu")},
    }

    def write(directory: Path) -> dict[str, Any]:
        rows = read_side_by_side(ordered, *known)
        return write_report(directory, rows, score_systems(rows.answers, rows.references, evaluation), context)

    return load_report(store.produce("report", inputs, write).path)


def write_report(directory: Path, rows: SideBySide, scored: Scored, context: dict[str, Any]) -> dict[str, Any]:
    """Write `report.json`, `report.md` and `predictions.jsonl` and return their facts.

    Args:
        directory: where to; exists.
        rows: prompts, references and answers.
        scored: scores, differences and signature.
        context: the predictions' digests and the evaluation section; stands in the report as it is.
    """
    report = {
        "examples": len(rows.ids),
        "scores": _intervals_to_json(scored.scores),
        "differences": _intervals_to_json(scored.differences),
        "signature": scored.signature,
        "context": context,
    }
    # Not canonical JSON: the order of systems and metrics is that of the tables that people see.
    (directory / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    markdown = render(rows, scored, context["evaluation"]["confidence"])
    (directory / "report.md").write_text(markdown, encoding="utf-8")
    write_jsonl(directory / "predictions.jsonl", rows.records())
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
        report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        return EvalReport(
            path=directory,
            digest=entry_at(directory).digest,
            examples=report["examples"],
            scores=_intervals_from_json(report["scores"]),
            differences=_intervals_from_json(report["differences"]),
            signature=report["signature"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{directory} holds no complete evaluation report: {error!r}") from error


def _intervals_to_json(figures: dict[str, dict[str, Interval]]) -> dict[str, Any]:
    return {
        name: {
            metric: {"value": interval.value, "low": interval.low, "high": interval.high}
            for metric, interval in by_metric.items()
        }
        for name, by_metric in figures.items()
    }


def _intervals_from_json(figures: dict[str, Any]) -> dict[str, dict[str, Interval]]:
    return {
        name: {metric: interval_from_json(value) for metric, value in by_metric.items()}
        for name, by_metric in figures.items()
    }
