"""Rules of the house: regular expressions, and terms that are spelled one way."""

from typing import Any

from tasks.contracts.cleaning_config import ReplaceStep, TermsStep
from tasks.contracts.errors import ConfigError
from tasks.contracts.section import flaw_of_text
from tasks.data.cleaning.step import Dropped, texts_of, with_texts
from tasks.data.cleaning.term_files import read_pairs
from tasks.data.cleaning.word_search import WordSearch
from tasks.data.rows import Row

MATCHED_PATTERN = "matched a pattern"


class Replace:
    """Replaces what a regular expression matches, or drops the rows in which it matches.

    RE2 runs in time linear in the text whatever the expression is. A match without any character replaces nothing.

    Raises:
        ConfigError: the expression is none that RE2 takes, or the replacement names a group that it does not have.
    """

    def __init__(self, section: ReplaceStep) -> None:
        self.name = f"replace:{section.name}"
        self._rule = section.name
        self._drop = section.drop
        self._replacement = section.replacement
        self._literal = "\\" not in section.replacement
        self._pattern = _compiled(section)

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row with its texts rewritten, or why it is dropped."""
        if self._drop:
            return [self._judged(row) for row in rows]
        return [with_texts(row, self._rewritten) for row in rows]

    def _judged(self, row: Row) -> Row | Dropped:
        for text in texts_of(row):
            if self._pattern.search(text):
                return Dropped(MATCHED_PATTERN, self._rule)
        return row

    def _rewritten(self, text: str) -> str:
        pieces: list[str] = []
        end = 0
        for match in self._pattern.finditer(text):
            first, last = match.span()
            if first == last:
                continue
            pieces.append(text[end:first])
            pieces.append(self._replacement if self._literal else match.expand(self._replacement))
            end = last
        return "".join([*pieces, text[end:]]) if pieces else text


def _compiled(section: ReplaceStep) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(section.pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ConfigError(
            f"the replace step {section.name!r} has the pattern {section.pattern!r}; expected an RE2 "
            f"expression: {reason}"
        ) from error
    try:
        # Any text will do: whether the groups exist does not depend on it.
        written = re2.compile(f"(?:{section.pattern})|", options).search("").expand(section.replacement)
        # Groups hold text of rows, so what is put in is as sound as what is written between them.
        if flaw := flaw_of_text(written):
            raise ValueError(f"what it writes {flaw}; all that matches is \\g<0>")
    except (IndexError, ValueError) as error:
        raise ConfigError(
            f"the replace step {section.name!r} has the replacement {section.replacement!r} ({error}); expected text "
            f"with groups of its pattern, which has {pattern.groups}"
        ) from error
    return pattern


class Terms:
    """Spells terms as one house spells them, the longest term first; what was put in is not looked at again.

    Raises:
        ConfigError: the file of terms cannot be read or has a line that is no pair.
    """

    name = "terms"

    def __init__(self, section: TermsStep) -> None:
        terms = (read_pairs(section.path, "terms.path") if section.path else {}) | section.terms
        if not terms:
            raise ConfigError(f"terms.path names {section.path!r}, which has no terms; expected a pair a line")
        self._preferred = list(terms.values())
        self._search = WordSearch(list(terms), section.whole_words, section.ignore_case)

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row with its terms replaced; none is dropped."""
        return [with_texts(row, self._rewritten) for row in rows]

    def _rewritten(self, text: str) -> str:
        pieces: list[str] = []
        end = 0
        for number, first, last in self._search.find(text):
            pieces += (text[end:first], self._preferred[number])
            end = last
        return "".join([*pieces, text[end:]]) if pieces else text
