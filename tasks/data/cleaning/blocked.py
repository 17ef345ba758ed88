"""Rows that hold a blocked word are dropped."""

from tasks.contracts.cleaning_config import BlockedStep
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.step import Dropped, texts_of
from tasks.data.cleaning.term_files import read_words
from tasks.data.cleaning.word_search import WordSearch
from tasks.data.rows import Row

BLOCKED_WORD = "blocked word"


class Blocked:
    """Drops rows with a blocked word in any text.

    Raises:
        ConfigError: the file of words cannot be read, or there is no word in it.
    """

    name = "blocked"

    def __init__(self, section: BlockedStep) -> None:
        words = dict.fromkeys(section.words)
        if section.path:
            words |= dict.fromkeys(read_words(section.path, "blocked.path"))
        if not words:
            raise ConfigError(f"blocked.path names {section.path!r}, which has no words; expected one a line")
        self._words = list(words)
        self._search = WordSearch(self._words, section.whole_words, ignore_case=True)

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row, or why it is dropped; the detail names the first blocked word."""
        return [self._judged(row) for row in rows]

    def _judged(self, row: Row) -> Row | Dropped:
        for text in texts_of(row):
            for number, _, _ in self._search.find(text):
                return Dropped(BLOCKED_WORD, self._words[number])
        return row
