"""The cleaning step for personal data: rows leave it with pseudonyms, are dropped, or stop the run."""

from collections import Counter
from collections.abc import Sequence

from tasks.contracts.cleaning_config import PersonalStep
from tasks.contracts.errors import DataError
from tasks.data.cleaning.step import Dropped, texts_of, with_texts
from tasks.data.personal.pseudonyms import replaced
from tasks.data.personal.scanner import PersonalScanner
from tasks.data.personal.spans import Span
from tasks.data.rows import PERSONAL_DATA, Row


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
        kinds = ", ".join(sorted(counts))
        if self._action == "drop":
            return Dropped(PERSONAL_DATA, kinds)
        raise DataError(
            f"row {row['id']} of source {row['source']} holds personal data ({kinds}), and the step personal has the "
            "action block: mend the source, or set its action to pseudonym or drop"
        )
