"""Words and entities that stand for each other, from files the user gives."""

import random
from collections import defaultdict
from pathlib import Path

from tasks.contracts.augment_config import EntityMethod, SynonymMethod
from tasks.contracts.errors import ConfigError
from tasks.contracts.jsonl import digest_of_file
from tasks.data.augment.method import question_of, with_changed_prose, with_question
from tasks.data.cleaning.step import texts_of, with_texts
from tasks.data.cleaning.term_files import read_words
from tasks.data.cleaning.word_search import WordSearch
from tasks.data.rows import Row


class Synonyms:
    """Replaces words of the question by others of their group.

    Raises:
        ConfigError: the file cannot be read, or a line has fewer than two words.
    """

    name = "synonyms"

    def __init__(self, section: SynonymMethod) -> None:
        self._path = section.path
        self._word_share = section.word_share
        groups: dict[str, list[str]] = defaultdict(list)
        for columns in _columns(section.path, "augment.methods.path (synonyms)", at_least=2):
            for word in columns:
                groups[word] += [other for other in columns if other != word and other not in groups[word]]
        self._others = [groups[word] for word in groups]
        self._search = WordSearch(list(groups), whole_words=True, ignore_case=True)

    def make(self, rows: list[Row], draws: list[random.Random]) -> list[Row | None]:
        """Return each row with some words of its question replaced, None where it has none that is known."""
        return [self._made(row, draw) for row, draw in zip(rows, draws, strict=True)]

    def depends_on(self) -> dict[str, str]:
        """Return the digest of the file."""
        return {self._path: digest_of_file(Path(self._path))}

    def _made(self, row: Row, draw: random.Random) -> Row | None:
        question = question_of(row)
        found = 0

        def count(prose: str) -> str:
            nonlocal found
            found += sum(1 for _ in self._search.find(prose))
            return prose

        with_changed_prose(question, count)
        if not found:
            return None
        chosen = set(draw.sample(range(found), max(1, round(found * self._word_share))))
        place = -1

        def replace(prose: str) -> str:
            nonlocal place
            pieces: list[str] = []
            end = 0
            for number, first, last in self._search.find(prose):
                place += 1
                if place in chosen:
                    pieces += (prose[end:first], _in_case_of(prose[first:last], draw.choice(self._others[number])))
                    end = last
            return "".join([*pieces, prose[end:]])

        return with_question(row, with_changed_prose(question, replace))


class Entities:
    """Replaces entities by others of their kind, the same ones in every text of a row.

    Raises:
        ConfigError: the file cannot be read, or a line has not two columns.
    """

    name = "entities"

    def __init__(self, section: EntityMethod) -> None:
        self._path = section.path
        self._members: dict[str, list[str]] = defaultdict(list)
        kinds: dict[str, str] = {}
        for kind, entity, *rest in _columns(section.path, "augment.methods.path (entities)", at_least=2):
            if rest or kinds.setdefault(entity, kind) != kind:
                problem = "which has more than two columns" if rest else f"which is of the kind {kinds[entity]!r} too"
                raise ConfigError(
                    f"augment.methods.path (entities) names {section.path!r} with {entity!r}, {problem}; "
                    "expected one kind, a tab and one entity"
                )
            if entity not in self._members[kind]:
                self._members[kind].append(entity)
        self._entities = list(kinds)
        self._kinds = kinds
        self._search = WordSearch(self._entities, whole_words=True, ignore_case=False)

    def make(self, rows: list[Row], draws: list[random.Random]) -> list[Row | None]:
        """Return each row with its entities swapped, None where its question has none that is known."""
        return [self._made(row, draw) for row, draw in zip(rows, draws, strict=True)]

    def depends_on(self) -> dict[str, str]:
        """Return the digest of the file."""
        return {self._path: digest_of_file(Path(self._path))}

    def _made(self, row: Row, draw: random.Random) -> Row | None:
        if next(self._search.find(question_of(row)), None) is None:
            return None
        there = list(
            dict.fromkeys(self._entities[number] for text in texts_of(row) for number, _, _ in self._search.find(text))
        )
        swaps: dict[str, str] = {}
        for entity in there:
            # Neither one that the row has already nor one that another becomes: two must not melt into one.
            free = [m for m in self._members[self._kinds[entity]] if m not in there and m not in swaps.values()]
            if free:
                swaps[entity] = draw.choice(free)
        made = with_texts(row, lambda text: self._swapped(text, swaps))
        return None if made is row else made

    def _swapped(self, text: str, swaps: dict[str, str]) -> str:
        pieces: list[str] = []
        end = 0
        for number, first, last in self._search.find(text):
            pieces += (text[end:first], swaps.get(self._entities[number], self._entities[number]))
            end = last
        return "".join([*pieces, text[end:]])


def _columns(path: str, config_key: str, at_least: int) -> list[list[str]]:
    lines = []
    for line in read_words(path, config_key):
        columns = [column.strip() for column in line.split("\t") if column.strip()]
        if len(columns) < at_least:
            raise ConfigError(
                f"{config_key} names {path!r}, which has the line {line!r}; expected at least {at_least} columns "
                "with tabs between them"
            )
        lines.append(columns)
    if not lines:
        raise ConfigError(f"{config_key} names {path!r}, which is empty; expected words with tabs between them")
    return lines


def _in_case_of(model: str, word: str) -> str:
    """Return `word` with capitals where `model` has them: all, the first letter, or as it is."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
