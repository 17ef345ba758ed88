"""What a report is made of besides the systems' answers to the evaluation rows."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Memorised, Predictions, Preference
from tasks.contracts.errors import EvaluationError
from tasks.contracts.jsonl import digest_of_file


@dataclass(frozen=True)
class Evidence:
    """What was found out beside the answers, and who was trained on what.

    Attributes:
        champion_learned: files of rows that the champion was trained on or could replay: nobody is judged on them.
        trained_on: the candidate's own: rows that stand in them are counted, and the gate refuses such a report.
        memorised: what came out of canaries in the candidate's training, if there were any.
        preferences: whose answers a judge preferred, if one was asked.
        general: system → its answers to the general-ability set, if that was asked.
    """

    champion_learned: tuple[Path, ...] = ()
    trained_on: tuple[Path, ...] = ()
    memorised: Memorised | None = None
    preferences: tuple[Preference, ...] = ()
    general: dict[str, Predictions] | None = None

    def digests(self) -> dict[str, Any]:
        """Return all of it, files and answers by their digests.

        Raises:
            EvaluationError: a file is lost.
        """
        return {
            "champion_learned": list(_digests("champion", self.champion_learned)),
            "candidate_learned": list(_digests("candidate", self.trained_on)),
            "memorised": asdict(self.memorised) if self.memorised else None,
            "preferences": [asdict(each) for each in self.preferences],
            "general": {system: each.digest for system, each in self.general.items()} if self.general else None,
        }


def _digests(whose: str, paths: tuple[Path, ...]) -> Iterator[str]:
    for path in paths:
        if not path.is_file():
            raise EvaluationError(f"the {whose}'s training rows at {path} are lost")
        yield digest_of_file(path)
