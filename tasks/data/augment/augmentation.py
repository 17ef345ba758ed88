"""Rows made of training rows by the methods of the configuration, with filters for what is no use."""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import islice

from tasks.contracts.augment_config import (
    AugmentMethod,
    AugmentSection,
    BackTranslationMethod,
    EndpointMethod,
    EntityMethod,
    GrammarMethod,
    SynonymMethod,
)
from tasks.contracts.twins import fold_text, folded
from tasks.data.augment.made_line import MadeLine
from tasks.data.augment.method import Method, question_of
from tasks.data.cleaning.step import REJECTED, Dropped
from tasks.data.rows import Row, id_of, prompt_of

NOTHING_MADE = "nothing to change"
TOO_CLOSE = "too close to its parent"
TOO_FAR = "too far from its parent"
PROMPT_TAKEN = "prompt of another row"

_BATCH_ROWS = 256
_SHINGLE_CHARS = 3
_HAN_SHINGLE_CHARS = 2  # a Chinese word has two; in a short question few 3-grams would outlive one
_HAN = re.compile("[\u3400-\u9fff]")


class Augmentation:
    """Makes rows of training rows. Deterministic: by the seed and each row's id, whatever the rows beside it are.

    What a method makes goes through the cleaning line first and is compared with its parent as it comes out: a step
    that takes the change back leaves nothing new.

    Args:
        section: methods and filters.
        line: cleans what is made; None: nothing does.

    Attributes:
        counts: method → made rows, under "made", and tries without one, under their reason.

    Raises:
        ConfigError: a file, model or key that a method needs is missing.
    """

    def __init__(self, section: AugmentSection, line: MadeLine | None = None) -> None:
        self._section = section
        self._line = line
        self._methods = [(method.slices, _build_method(method)) for method in section.methods]
        self.counts: dict[str, Counter[str]] = {method.name: Counter() for _, method in self._methods}

    def run(self, rows: Iterable[Row], taken: Container[bytes] = frozenset()) -> Iterator[Row]:
        """Yield the rows that are made, each with `parent` (its id) and `method` in its meta; not their parents.

        Args:
            rows: training rows, in an order that is the same each time: of two rows that become the same, the first
                one has it.
            taken: keys (`prompt_key`) of the prompts of all rows there are, for training and for evaluation.

        Raises:
            DataError: an endpoint refuses.
        """
        made_prompts: set[bytes] = set()
        remaining = iter(rows)
        while batch := list(islice(remaining, _BATCH_ROWS)):
            chosen = [row for row in batch if self._is_chosen(row)]
            left = dict.fromkeys(range(len(chosen)), self._section.max_per_row)
            made: list[tuple[int, Row]] = []
            for slices, method in self._methods:
                numbers = [n for n in left if left[n] and (not slices or chosen[n]["slice"] in slices)]
                tried = [chosen[number] for number in numbers]
                variants = method.make(tried, [self._draw(row, method.name) for row in tried]) if tried else []
                results = self._cleaned(variants, tried, method.name)
                for number, result in zip(numbers, results, strict=True):
                    reason = self._flaw_of(result, chosen[number], taken, made_prompts)
                    self.counts[method.name][reason or "made"] += 1
                    if isinstance(result, dict) and not reason:
                        made_prompts.add(prompt_key(result))
                        left[number] -= 1
                        made.append((number, result))
            yield from (row for _, row in sorted(made, key=lambda numbered: numbered[0]))

    def depends_on(self) -> dict[str, str]:
        """Return what the made rows depend on beside rows, section and code: name → digest or version."""
        return {name: value for _, method in self._methods for name, value in method.depends_on().items()}

    def _cleaned(self, variants: list[Row | None], parents: list[Row], method: str) -> list[Row | Dropped | None]:
        """Return each variant with its marks, as the cleaning line leaves it, or why it was dropped there."""
        marked = [
            variant and _marked(variant, parent, method) for variant, parent in zip(variants, parents, strict=True)
        ]
        if self._line is None:
            return list(marked)
        pairs = [(row, parent) for row, parent in zip(marked, parents, strict=True) if row is not None]
        cleaned = iter(self._line.clean([row for row, _ in pairs], [parent for _, parent in pairs]))
        return [row if row is None else next(cleaned) for row in marked]

    def _is_chosen(self, row: Row) -> bool:
        return self._draw(row, "row").random() < self._section.row_share

    def _draw(self, row: Row, purpose: str) -> random.Random:
        return random.Random(f"{self._section.seed} {purpose} {row['id']}")  # noqa: S311 - no secret

    def _flaw_of(
        self, result: Row | Dropped | None, parent: Row, taken: Container[bytes], made_prompts: set[bytes]
    ) -> str | None:
        if result is None:
            return NOTHING_MADE
        if isinstance(result, Dropped):
            return result.reason
        alike = similarity(question_of(result), question_of(parent))
        if alike > self._section.max_similarity:
            return TOO_CLOSE
        if alike < self._section.min_similarity:
            return TOO_FAR
        key = prompt_key(result)  # rows with one id have one prompt
        return PROMPT_TAKEN if key in taken or key in made_prompts or key == prompt_key(parent) else None


def augment(rows: Iterable[Row], section: AugmentSection, taken: Container[bytes] = frozenset()) -> Iterator[Row]:
    """Yield the rows that `section` makes of training rows (`Augmentation.run`); none if it names no method.

    Raises:
        ConfigError: a file, model or key that a method needs is missing.
        DataError: an endpoint refuses.
    """
    return Augmentation(section).run(rows, taken)


def depends_on(section: AugmentSection) -> dict[str, str]:
    """Return what the made rows depend on beside rows, section and code: digests of dictionaries and models.

    Raises:
        ConfigError: a file, model or key that a method needs is missing.
    """
    return Augmentation(section).depends_on()


def prompt_key(row: Row) -> bytes:
    """Return the 16 bytes that stand in the index's column `prompt`: rows have them in common that ask the same."""
    return hashlib.blake2b(folded(prompt_of(row)).encode(), digest_size=16).digest()


def similarity(first: str, second: str) -> float:
    """Return the Jaccard similarity of the sets of folded character 3-grams, 0 to 1; with Chinese, of 2-grams."""
    size = _HAN_SHINGLE_CHARS if _HAN.search(first) or _HAN.search(second) else _SHINGLE_CHARS
    one, other = _shingles(first, size), _shingles(second, size)
    return len(one & other) / len(one | other)


def _shingles(text: str, size: int) -> set[str]:
    plain = fold_text(text)
    return {plain[start : start + size] for start in range(max(1, len(plain) - size + 1))}


def _marked(variant: Row, parent: Row, method: str) -> Row:
    meta = {**parent["meta"], "parent": parent["id"], "method": method}
    return {**variant, "id": id_of(variant["messages"], variant.get(REJECTED)), "meta": meta}


def _build_method(section: AugmentMethod) -> Method:
    """Import only what the method needs."""
    match section:
        case SynonymMethod():
            from tasks.data.augment.dictionaries import Synonyms

            return Synonyms(section)
        case EntityMethod():
            from tasks.data.augment.dictionaries import Entities

            return Entities(section)
        case GrammarMethod():
            from tasks.data.augment.grammar import Grammar

            return Grammar()
        case BackTranslationMethod():
            from tasks.data.augment.back_translation import through_models

            return through_models(section)
        case EndpointMethod():
            from tasks.data.augment.back_translation import through_endpoint

            return through_endpoint(section)
