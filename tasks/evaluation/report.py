"""The evaluation report as an artifact: `report.json` for the gate, `report.md` for people, answers side by side."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.contracts.artifacts import EvalReport, Memorised, Part, Predictions, Preference
from tasks.contracts.config import EvaluationSection
from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import digest_of_file, write_jsonl
from tasks.contracts.metric_names import BUILT_IN, brought_along
from tasks.contracts.store import Store, code_digest, entry_at
from tasks.evaluation.general_set import score_general
from tasks.evaluation.markdown import render
from tasks.evaluation.scoring import SYSTEMS, Scored, score_systems
from tasks.evaluation.side_by_side import SideBySide, count_learned, read_side_by_side

_SCORED = TypeAdapter(EvalReport)


def build_report(
    predictions: dict[str, Predictions],
    evaluation: EvaluationSection,
    store: Store,
    learned: Path | None = None,
    replayed: Path | None = None,
    trained_on: tuple[Path, ...] = (),
    memorised: Memorised | None = None,
    preferences: tuple[Preference, ...] = (),
    general: dict[str, Predictions] | None = None,
) -> EvalReport:
    """Score the systems on the rows they all answered, or find the report that did.

    Args:
        predictions: system ("base", "champion" if any, "candidate") → its answers.
        evaluation: metrics, and how intervals and p-values are made.
        store: where the report is kept.
        learned: the champion's `train.jsonl`: nobody is judged on rows that stand in it.
        replayed: the rows that it could replay beside them, if any: likewise.
        trained_on: the candidate's own: rows that stand in them are counted, and the gate refuses such a report.
        memorised: what came out of canaries in the candidate's training, if there were any.
        preferences: whose answers a judge preferred, if one was asked.
        general: system → its answers to the general-ability set, if that was asked.

    Raises:
        EvaluationError: a system is missing, the systems did not answer the same rows in the same order, or the
            champion was trained on all of them.
    """
    ordered = {system: predictions[system] for system in SYSTEMS if system in predictions}
    unknown = set(predictions) - set(ordered)
    if unknown:
        raise EvaluationError(f"{sorted(unknown)[0]!r} is not a system; expected {', '.join(SYSTEMS)}")
    known = [path for path in (learned, replayed) if path is not None]
    for whose, paths in (("champion", known), ("candidate", trained_on)):
        for path in paths:
            if not path.is_file():
                raise EvaluationError(f"the {whose}'s training rows at {path} are lost")
    context = {
        "predictions": {system: answered.digest for system, answered in ordered.items()},
        "evaluation": evaluation.model_dump(mode="json"),
        "champion_learned": digest_of_file(learned) if learned else None,
        "champion_replayed": digest_of_file(replayed) if replayed else None,
        "candidate_learned": [digest_of_file(path) for path in trained_on],
        "memorised": asdict(memorised) if memorised else None,
        "preferences": [asdict(each) for each in preferences],
        "general": {system: answered.digest for system, answered in general.items()} if general else None,
    }
    inputs = {
        **context,
        "code": code_digest("tasks/evaluation", "tasks/contracts"),
        "libraries": {name: version(name) for name in ("numpy", "sacrebleu")},
        "brought_along": [brought_along(name) for name in evaluation.metrics if name not in BUILT_IN],
    }

    def write(directory: Path) -> dict[str, Any]:
        rows = read_side_by_side(ordered, *known)
        scored, leaked = score_systems(rows, evaluation), count_learned(rows, trained_on)
        asked, part = score_general(general, evaluation) if general else (None, None)
        if asked is not None:
            write_jsonl(directory / "general.jsonl", asked.records())
        return write_report(directory, rows, scored, context, leaked, memorised, preferences, part)

    return load_report(store.produce("report", inputs, write).path)


def write_report(
    directory: Path,
    rows: SideBySide,
    scored: Scored,
    context: dict[str, Any],
    leaked_rows: int = 0,
    memorised: Memorised | None = None,
    preferences: tuple[Preference, ...] = (),
    general: Part | None = None,
) -> dict[str, Any]:
    """Write `report.json`, `report.md` and `predictions.jsonl` and return their facts.

    Args:
        directory: where to; exists.
        rows: prompts, references and answers.
        scored: scores, differences, slices and signature.
        context: the predictions' digests and the evaluation section; stands in the report as it is.
        leaked_rows: evaluated rows that the candidate was trained on.
        memorised: what came out of canaries, if there were any.
        preferences: whose answers a judge preferred, if one was asked.
        general: what the general-ability set says, if it was asked.
    """
    confidence = context["evaluation"]["confidence"]
    report = EvalReport(
        path=directory,
        digest="",
        examples=len(rows.ids),
        confidence=confidence,
        leaked_rows=leaked_rows,
        memorised=memorised,
        preferences=preferences,
        general=general,
        **{name: part for name, part in scored._asdict().items() if name != "of_rows"},
    )
    facts = asdict(report)
    del facts["path"], facts["digest"]
    # Not canonical JSON: the order of systems and metrics is that of the tables that people see.
    text = json.dumps({**facts, "context": context}, indent=1, ensure_ascii=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.md").write_text(render(rows, scored, confidence), encoding="utf-8")
    records = zip(rows.records(), scored.of_rows, strict=True)
    write_jsonl(directory / "predictions.jsonl", ({**record, "scores": scores} for record, scores in records))
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
