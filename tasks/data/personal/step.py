"""The cleaning step for personal data: rows leave it with pseudonyms, are dropped, or stop the run."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from tasks.contracts.cleaning_config import PersonalKind, PersonalStep
from tasks.contracts.errors import DataError
from tasks.data.cleaning.step import Dropped, texts_of, with_texts
from tasks.data.personal.pseudonyms import replaced
from tasks.data.personal.scanner import PersonalScanner
from tasks.data.personal.spans import Span
from tasks.data.rows import PERSONAL_DATA, Row, asked_text

_SHOWN_CHARS = 120


class PersonalData:
    """Looks for personal data in every text of a row.

    Attributes:
        name: what its counts stand under.
        found: pieces of personal data so far, by kind or name of the user pattern.
    """

    name = "personal"

    def __init__(self, section: PersonalStep) -> None:
        """Compile the rules of a section.

        Raises:
            DataError: a user pattern does not compile.
            EnvironmentProblem: named_entity is wanted and presidio or a model is missing.
        """
        self._action = section.action
        self._section = section
        self._scanner = PersonalScanner(section.kinds, section.patterns, dict(section.entity_models.items()))
        self.signs = self._scanner.signs
        self.found: Counter[str] = Counter()

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return each row as it is if it holds no personal data, else with pseudonyms or dropped.

        Raises:
            DataError: the action is block and a row holds personal data; the text never shows the data.
        """
        texts: list[str] = []
        ends: list[int] = []
        for row in rows:
            texts.extend(texts_of(row))
            ends.append(len(texts))
        spans = self._scanner.find(texts)
        if self._action == "block":
            self._refuse(rows, ends, texts, spans)
        result: list[Row | Dropped] = []
        start = 0
        for row, end in zip(rows, ends, strict=True):
            found = spans[start:end]
            result.append(self._treated(row, texts[start:end], found) if any(found) else row)
            start = end
        return result

    def hidden(self, row: Row) -> Row | None:
        """Return a row that another step dropped as it may be kept: with pseudonyms; None if it may not."""
        texts = list(texts_of(row))
        new = self.hidden_texts(texts)
        return new if new is None else with_texts(row, dict(zip(texts, new, strict=True)).__getitem__)

    def hidden_texts(self, texts: list[str]) -> list[str] | None:
        """Return the texts of one rejected record as they may be kept; None if they may not be kept.

        They are not counted in `found`, and the action block does not stop the run: nobody uses these texts.
        """
        spans = self._scanner.find(texts)
        if not any(spans):
            return texts
        if self._action != "pseudonym":
            return None
        new = replaced(texts, spans)
        return [new[text] for text in texts]

    def _treated(self, row: Row, texts: list[str], spans: list[Sequence[Span]]) -> Row | Dropped:
        counts = Counter(span.kind for found in spans for span in found)
        self.found += counts
        if self._action == "pseudonym":
            new = replaced(texts, spans)
            return with_texts(row, new.__getitem__)
        return Dropped(PERSONAL_DATA, ", ".join(sorted(counts)))

    def _refuse(self, rows: list[Row], ends: list[int], texts: list[str], spans: list[Sequence[Span]]) -> None:
        """Stop the run if a row holds personal data; its question is shown with pseudonyms, so that it is found again.

        Raises:
            DataError: there is such a row.
        """
        starts = [0, *ends[:-1]]
        found = [place for place in range(len(rows)) if any(spans[starts[place] : ends[place]])]
        if not found:
            return
        place = found[0]
        row, here = rows[place], slice(starts[place], ends[place])
        kinds = ", ".join(sorted({span.kind for each in spans[here] for span in each}))
        # Shown are the names of all kinds there are, for the step may look for a few of them.
        section = self._section
        shown = {*section.kinds, *(set(get_args(PersonalKind)) - {"named_entity"})}
        scanner = PersonalScanner(shown, section.patterns, dict(section.entity_models.items()))
        hidden = with_texts(row, replaced(texts[here], scanner.find(texts[here])).__getitem__)
        more = len(found) - 1
        others = f" (and {more} more row{'s' if more > 1 else ''} of the same batch)" if more else ""
        raise DataError(
            f"row {row['id']} of source {row['source']}, which asks {_beginning(asked_text(hidden))!r}, holds personal "
            f"data: {kinds}{others}; the step personal has the action block: mend the source, or set its action to "
            "pseudonym or drop"
        )


def _beginning(text: str) -> str:
    """Return the beginning of a text on one line; what would steer a terminal is shown as a question mark."""
    flat = " ".join(text[: 4 * _SHOWN_CHARS].split())
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in flat)
    return shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + "…"
