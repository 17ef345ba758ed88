"""The review as an artifact: `review.html`, `review.md` and `decision.json`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import EvalReport, GateDecision, Review
from tasks.contracts.jsonl import read_jsonl
from tasks.contracts.store import Store, code_digest, library_versions
from tasks.evaluation.markdown import as_text
from tasks.evaluation.review.page import Background, render_page
from tasks.evaluation.review.preferences import preference_tables


def write_review(
    report: EvalReport, decision: GateDecision, primary: str, background: Background, store: Store
) -> Review:
    """Return the page on a decision, writing it only if the store has none.

    Args:
        report: what was decided on.
        decision: the gate's.
        primary: the metric by which rows are better or worse.
        background: what stands beside the scores.
        store: keeps the page.
    """
    inputs = {
        "report": report.digest,
        "decision": asdict(decision),
        "primary": primary,
        "background": asdict(background),
        "code": code_digest(
            "tasks/evaluation/pages.py",
            "tasks/evaluation/review",
            "tasks/evaluation/review/page.html.jinja",
            "tasks/evaluation/markdown.py",
        ),
        "libraries": library_versions("jinja2"),
    }

    def write(out: Path) -> dict[str, Any]:
        rows = list(read_jsonl(report.path / "predictions.jsonl"))
        page = render_page(report, decision, primary, rows, background)
        (out / "review.html").write_text(page, encoding="utf-8")
        (out / "review.md").write_text(_markdown(report, decision, background), encoding="utf-8")
        text = json.dumps(asdict(decision), indent=1, ensure_ascii=False)
        (out / "decision.json").write_text(text + "\n", encoding="utf-8")
        return {"verdict": decision.verdict}

    entry = store.produce("review", inputs, write)
    return Review(path=entry.path, digest=entry.digest)


def _markdown(report: EvalReport, decision: GateDecision, background: Background) -> str:
    """Return verdict and findings, what stands beside them, and the report."""
    lines = [f"# Verdict: {decision.verdict}", ""]
    found = decision.findings
    lines += [f"- **{finding.outcome}** ({finding.rule}): {as_text(finding.sentence, 2_000)}" for finding in found]
    lines += [f"- {as_text(reason, 2_000)}" for reason in decision.reasons[len(found) :]]
    if background.data:
        lines += ["", "## Training rows", "", "| | champion | candidate |", "| --- | ---: | ---: |"]
        lines += [
            f"| {as_text(label)} | {as_text(before)} | {as_text(after)} |" for label, before, after in background.data
        ]
    for heading, figures in preference_tables(report.preferences):
        lines += ["", f"## {as_text(heading)}", "", "| | |", "| --- | ---: |"]
        lines += [f"| {as_text(label)} | {as_text(figure)} |" for label, figure in figures]
    for heading, pairs in (("What it is made of", background.settings), ("What it cost", background.cost)):
        if pairs:
            lines += ["", f"## {heading}", "", "| | |", "| --- | ---: |"]
            lines += [f"| {as_text(label)} | {as_text(figure)} |" for label, figure in pairs]
    return "\n".join(lines) + "\n\n" + (report.path / "report.md").read_text(encoding="utf-8")
