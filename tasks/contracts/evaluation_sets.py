"""The sets that evaluated rows are of, and the digests that name what is evaluated."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.errors import ConfigError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.contracts.home import PROJECT_ROOT
from tasks.contracts.jsonl import digest_of, digest_of_file

ANCHOR, RECENT = "anchor", "recent"
"""Rows of a frozen evaluation set, and rows held out beside them from what came later (data.recent_eval_rows)."""
SETS_AGREE, GENERAL_ABILITY = "sets agree", "general ability"
TOLD_RULES = (SETS_AGREE, GENERAL_ABILITY)
"""Rules of the gate that are a tag of the run each, and a warning in the log where they do not pass."""

OWN_GENERAL_SET = PROJECT_ROOT / "tasks" / "evaluation" / "general.jsonl"


def evaluation_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the digest of evaluation rows in their order: of their ids and, where rows have one, their sets.

    The same rows divided otherwise are asked and scored anew: answers carry the set.
    """
    return digest_of([[row["id"], row["set"]] if "set" in row else row["id"] for row in rows])


def general_file(evaluation: EvaluationSection) -> Path | None:
    """Return the file of the general-ability set, None if it is not asked."""
    if not evaluation.general:
        return None
    return Path(evaluation.general_path) if evaluation.general_path else OWN_GENERAL_SET


def general_digest(evaluation: EvaluationSection) -> str | None:
    """Return the digest of the general-ability set, None if it is not asked.

    Raises:
        ConfigError: its file cannot be read.
    """
    file = general_file(evaluation)
    if file is None:
        return None
    try:
        return digest_of_file(file)
    except OSError as error:
        raise ConfigError(
            f"evaluation.general_path is {str(file)!r}, which cannot be read ({error.strerror}); "
            "expected a JSONL file of messages"
        ) from error
