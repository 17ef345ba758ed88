"""Pieces of a source that never became rows, as a data version keeps them: with pseudonyms, without what was erased."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.contracts.cleaning_config import CleaningStep, PersonalStep
from tasks.contracts.jsonl import digest_of
from tasks.data.records.erasure import ERASED
from tasks.data.records.excerpts import is_cut, unescaped, without_half_word
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
    quote it. What depends on the order of a file (line and place of the source) is left out. Where there is a step for
    personal data, it sees an excerpt without the escapes of JSON, and the half word at the end of a cut one goes.

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
        shown, said = _hidden(excerpt, detail, personal) if personal else (excerpt, detail)
        if excerpt and not marks.isdisjoint((piece_id(excerpt), piece_id(shown))):
            shown, said = "", ERASED
        elif shown and shown != excerpt:
            lineage.extend([(piece_id(shown), piece_id(excerpt))])
        yield {"reason": record["reason"], "detail": said, "source": record["source"], "excerpt": shown}


def _hidden(excerpt: str, detail: str, steps: "list[PersonalData]") -> tuple[str, str]:
    """Return excerpt and detail as they may be kept; as they were where nothing is hidden and nothing was cut."""
    cut = is_cut(excerpt)
    plain = [unescaped(excerpt), unescaped(detail)]
    if cut:
        plain[0] = without_half_word(plain[0])
    kept: list[str] | None = plain
    for step in steps:
        kept = kept if kept is None else step.hidden_texts(kept)
    if kept is None:
        return "", "personal data"
    if kept == plain and not cut:
        return excerpt, detail
    return kept[0], kept[1]


def _personal_steps(steps: Iterable[CleaningStep]) -> "list[PersonalData]":
    sections = [step for step in steps if isinstance(step, PersonalStep)]
    if not sections:
        return []
    from tasks.data.personal.step import PersonalData

    return [PersonalData(section) for section in sections]
