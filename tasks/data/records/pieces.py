"""Pieces of a source that never became rows, as a data version keeps them: with pseudonyms, without what was erased."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.contracts.cleaning_config import CleaningStep, PersonalStep
from tasks.contracts.jsonl import digest_of
from tasks.data.records.erasure import ERASED
from tasks.data.records.lineage import Lineage

if TYPE_CHECKING:
    from tasks.data.personal.step import PersonalData


def piece_id(excerpt: str) -> str:
    """Return what a piece is known by: the sha256 (64 hex digits) of its excerpt."""
    return digest_of(excerpt)


def kept_pieces(
    records: Iterable[dict[str, Any]], steps: Iterable[CleaningStep], erased: Iterable[str], lineage: Lineage
) -> Iterator[dict[str, Any]]:
    """Yield the records of pieces as a data version keeps them.

    A piece that was erased keeps its reason, so that the counts stay, and loses its excerpt and its detail, which may
    quote it. What depends on the order of a file (line and place of the source) is left out.

    Args:
        records: of pieces, as a row set has them.
        steps: the cleaning steps; those for personal data say what may be kept of an excerpt.
        erased: marks of erased records.
        lineage: takes the ids of pieces that got pseudonyms.
    """
    personal: list[PersonalData] | None = None
    marks = frozenset(erased)
    for record in records:
        if personal is None:  # most sources have no such pieces, and the steps take a moment to build
            personal = _personal_steps(steps)
        excerpt, detail = record["excerpt"], record["detail"]
        kept: list[str] | None = [excerpt, detail]
        for step in personal:
            kept = kept if kept is None else step.hidden_texts(kept)
        shown, said = ("", "personal data") if kept is None else kept
        if excerpt and not marks.isdisjoint((piece_id(excerpt), piece_id(shown))):
            shown, said = "", ERASED
        elif shown and shown != excerpt:
            lineage.extend([(piece_id(shown), piece_id(excerpt))])
        yield {"reason": record["reason"], "detail": said, "source": record["source"], "excerpt": shown}


def _personal_steps(steps: Iterable[CleaningStep]) -> "list[PersonalData]":
    sections = [step for step in steps if isinstance(step, PersonalStep)]
    if not sections:
        return []
    from tasks.data.personal.step import PersonalData

    return [PersonalData(section) for section in sections]
