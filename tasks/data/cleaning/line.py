"""The cleaning line: the steps of the configuration in their order, and what each made of the rows."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.cleaning_config import (
    BlockedStep,
    CleaningStep,
    HtmlStep,
    LanguageStep,
    LengthStep,
    PersonalStep,
    RepetitionStep,
    ReplaceStep,
    TermsStep,
    UnicodeStep,
    WhitespaceStep,
)
from tasks.data.cleaning.gate import Gate
from tasks.data.cleaning.step import REJECTED, Dropped, HidesPersonalData, Step
from tasks.data.rows import Row, answer_of, id_of

CONVERSATION = "conversation"
"""Under this name the line counts rows that the steps left without a question or an answer."""

EMPTY_ANSWER = "empty answer"
BLANK_QUESTION = "blank user message"
NOTHING_TO_PREFER = "chosen and rejected are the same"


@dataclass(frozen=True)
class Cleaned:
    """What became of a batch.

    Attributes:
        kept: rows that passed every step, in order; those that changed have new ids.
        dropped: rows as they came to the step that dropped them, with the ids of their texts by then; why, and the name
            of the step.
        counts: name of each step → `changed` and `dropped` rows. A row that three steps change counts in all three.
        lineage: of each row with a new id, kept or dropped: this id, and the one that it came with.
    """

    kept: list[Row]
    dropped: list[tuple[Row, Dropped, str]]
    counts: dict[str, dict[str, int]]
    lineage: list[tuple[str, str]]


class Line:
    """Steps in order, and at the end a look at what is left of each conversation."""

    def __init__(self, steps: list[tuple[str, Step]]) -> None:
        self._steps = steps
        self._place_of = {name: place for place, (name, _) in enumerate(steps)}
        self._hiding = [(place, step) for place, (_, step) in enumerate(steps) if isinstance(step, HidesPersonalData)]
        self._gate = Gate([step for _, step in steps])

    @property
    def found(self) -> Counter[str]:
        """Pieces of personal data found so far, by kind."""
        found: Counter[str] = Counter()
        for _, step in self._steps:
            found.update(getattr(step, "found", {}))
        return found

    def run(self, rows: list[Row]) -> Cleaned:
        """Take a batch through every step. The rows given are left as they are."""
        dropped: list[tuple[Row, Dropped, str]] = []
        lineage: list[tuple[str, str]] = []
        counts: dict[str, dict[str, int]] = {}
        current: list[Row | None] = list(rows)  # None: dropped
        changed: set[int] = set()
        shown = self._gate.rows_for(rows)
        for place, (name, step) in enumerate(self._steps):
            # A row that is as it came shows what it showed; of one that a step has changed nothing is known.
            if place in shown:
                looked_at = [number for number in sorted(shown[place] | changed) if current[number] is not None]
            else:
                looked_at = [number for number, row in enumerate(current) if row is not None]
            before = [row for number in looked_at if (row := current[number]) is not None]
            results = step.clean(before)
            assert len(results) == len(before), f"the step {name} answered {len(results)} of {len(before)} rows"
            counts[name] = {"changed": 0, "dropped": 0}
            for number, old, new in zip(looked_at, before, results, strict=True):
                if new is old:
                    continue
                if isinstance(new, Dropped):
                    dropped.append((_with_own_id(old, rows[number], lineage), new, name))
                    current[number] = None
                    counts[name]["dropped"] += 1
                else:
                    current[number] = new
                    changed.add(number)
                    counts[name]["changed"] += 1
        finished: list[Row] = []
        for original, last in zip(rows, current, strict=True):
            if last is None:
                continue
            row, flaw = _with_own_id(last, original, lineage), _flaw_of(last)
            if flaw is None:
                finished.append(row)
            else:
                dropped.append((row, flaw, CONVERSATION))
        counts[CONVERSATION] = {"changed": 0, "dropped": sum(name == CONVERSATION for _, _, name in dropped)}
        return Cleaned(finished, dropped, counts, lineage)

    def without_personal_data(self, row: Row, dropped_by: str) -> Row | None:
        """Return a dropped row as the personal steps that it did not come to would leave its text.

        Args:
            row: is left as it is.
            dropped_by: the name of the step that dropped it.

        Returns:
            The row, with the id of its texts; the same object if it holds nothing personal. None if such a step drops
            or refuses what it finds, so that the text must not be kept.
        """
        place = self._place_of.get(dropped_by, len(self._steps))
        hidden: Row | None = row
        for number, step in self._hiding:
            if hidden is not None and number > place:
                hidden = step.hidden(hidden)
        if hidden is None or hidden is row:
            return hidden
        return {**hidden, "id": id_of(hidden["messages"], hidden.get(REJECTED))}


def build_line(steps: tuple[CleaningStep, ...], tokenizer_path: Path | None) -> Line:
    """Build the steps of the configuration, once in each process.

    Steps of one kind are counted as "terms", "terms 2", and so on; a replace step under its own name.

    Args:
        steps: sections in the order in which they run.
        tokenizer_path: the base model's `tokenizer.json` or its directory; only a length step needs it.

    Raises:
        ConfigError: a step's pattern, file or language code is not usable, or a length step has no tokenizer.
        DataError: a user pattern of the personal step does not compile.
    """
    named: list[tuple[str, Step]] = []
    seen: Counter[str] = Counter()
    for section in steps:
        step = _build_step(section, tokenizer_path)
        seen[step.name] += 1
        named.append((step.name if seen[step.name] == 1 else f"{step.name} {seen[step.name]}", step))
    return Line(named)


def _build_step(section: CleaningStep, tokenizer_path: Path | None) -> Step:
    """Import only what the step needs."""
    match section:
        case UnicodeStep():
            from tasks.data.cleaning.text import Unicode

            return Unicode(section)
        case WhitespaceStep():
            from tasks.data.cleaning.text import Whitespace

            return Whitespace(section)
        case HtmlStep():
            from tasks.data.cleaning.html import Html

            return Html(section)
        case ReplaceStep():
            from tasks.data.cleaning.rewrite import Replace

            return Replace(section)
        case TermsStep():
            from tasks.data.cleaning.rewrite import Terms

            return Terms(section)
        case LengthStep():
            from tasks.data.cleaning.length import Length

            return Length(section, tokenizer_path)
        case LanguageStep():
            from tasks.data.cleaning.language import Language

            return Language(section)
        case RepetitionStep():
            from tasks.data.cleaning.repetition import Repetition

            return Repetition(section)
        case BlockedStep():
            from tasks.data.cleaning.blocked import Blocked

            return Blocked(section)
        case PersonalStep():
            from tasks.data.personal.step import PersonalData

            return PersonalData(section)


def _flaw_of(row: Row) -> Dropped | None:
    answer = answer_of(row)
    if not answer or answer.isspace():
        return Dropped(EMPTY_ANSWER, "the answer has no text")
    for message in row["messages"]:
        content = message["content"]
        if message["role"] == "user" and (not content or content.isspace()):
            return Dropped(BLANK_QUESTION, "a message of the user has no text")
    if REJECTED in row and row[REJECTED] == answer:
        return Dropped(NOTHING_TO_PREFER, "the two answers are equal")
    return None


def _with_own_id(row: Row, original: Row, lineage: list[tuple[str, str]]) -> Row:
    """Return the row with the id of its texts as they are now, and note where it comes from."""
    if row is original:
        return row
    row_id = id_of(row["messages"], row.get(REJECTED))
    if row_id != original["id"]:
        lineage.append((row_id, original["id"]))
    return {**row, "id": row_id}
