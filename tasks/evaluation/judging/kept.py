"""Verdicts that were given, a line each as they come: a judging that was stopped goes on, and nothing is asked twice.

A line holds the question's digest and the verdict, no text of a row.
"""

import json
from pathlib import Path
from typing import Any, get_args

from tasks.contracts.jsonl import append_jsonl
from tasks.evaluation.judging.question import Place


class KeptVerdicts:
    """The verdicts of one judge.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = dict(map(_read, path.read_text(encoding="utf-8").splitlines())) if path.is_file() else {}

    def get(self, question_digest: str) -> Place | None:
        """Return what the judge said, if it was asked."""
        return self._known.get(question_digest)

    def keep(self, question_digest: str, verdict: Place) -> None:
        """Write a verdict down."""
        append_jsonl(self._path, {"question": question_digest, "verdict": verdict})
        self._known[question_digest] = verdict


def _read(line: str) -> tuple[str, Any]:
    """Read a line; one that a power cut tore tells nothing, and its question is asked again."""
    try:
        record = json.loads(line)
        digest, verdict = str(record["question"]), record["verdict"]
    except (ValueError, LookupError, TypeError):
        return "", None
    return digest, verdict if verdict in get_args(Place) else None
