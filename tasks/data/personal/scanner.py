"""Finds personal data in texts: a fast pass says which kinds a text may hold, exact rules say where."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import re2

from tasks.contracts.errors import DataError
from tasks.data.personal import signs
from tasks.data.personal.entities import EntityFinder
from tasks.data.personal.folding import disguises, folded, with_plain_spaces
from tasks.data.personal.gate import DISGUISED, Gate
from tasks.data.personal.names import find_chinese_names, find_english_names
from tasks.data.personal.network import find_emails, find_ipv4_addresses, find_ipv6_addresses, find_mac_addresses
from tasks.data.personal.numbers import find_bank_cards, find_china_ids, number_runs
from tasks.data.personal.phone import find_phones
from tasks.data.personal.secret import find_assigned, find_issued, find_prefixed
from tasks.data.personal.spans import Offsets, Span, merged


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one form of a kind is found, and the sign without which there is none."""

    kind: str
    sign: str
    find: Callable[[str], list[Offsets]] | None = None
    find_in_runs: Callable[[str, list[Offsets]], list[Offsets]] | None = None


_RULES = (
    _Rule("secret", signs.ISSUED, find_issued),
    _Rule("secret", signs.PREFIXED, find_prefixed),
    _Rule("secret", signs.ASSIGNED_VALUE, find_assigned),
    _Rule("email", signs.AT, find_emails),
    _Rule("china_id", signs.DIGITS, find_in_runs=find_china_ids),
    _Rule("bank_card", signs.DIGITS, find_in_runs=find_bank_cards),
    _Rule("ip_address", signs.V6, find_ipv6_addresses),
    _Rule("ip_address", signs.V4, find_ipv4_addresses),
    _Rule("mac_address", f"{signs.MAC}|{signs.CISCO_MAC}", find_mac_addresses),
    _Rule("phone", signs.PHONE, find_in_runs=find_phones),
    _Rule("name_with_age", signs.HAN_AGE, find_chinese_names),
    _Rule("name_with_age", signs.ENGLISH_AGE, find_english_names),
)
"""In order of precedence: of two that overlap, the one that stands first here has the characters. User patterns come
before them in the order of the configuration, named entities after them."""

ENTITIES = "named_entity"
_BLOCK_CHARS = 1_200
_PATTERN_MEMORY_BYTES = 8 << 20


class PersonalScanner:
    """Finds the kinds of personal data it was built for."""

    signs: list[str] | None
    """RE2 expressions one of which matches in every text that holds something; None: there are no such."""

    def __init__(
        self, kinds: Iterable[str], patterns: Mapping[str, str], entity_models: Mapping[str, str] | None = None
    ) -> None:
        """Compile what is looked for.

        Args:
            kinds: kinds of the configuration.
            patterns: name of a user's kind → RE2 expression.
            entity_models: language (ISO 639-1) → spaCy model, for named_entity.

        Raises:
            DataError: a pattern does not compile, or matches the empty text.
            EnvironmentProblem: named_entity is wanted and presidio or a model is not installed.
        """
        wanted = set(kinds)
        rules = [rule for rule in _RULES if rule.kind in wanted]
        distinct = list(dict.fromkeys(rule.sign for rule in rules))
        self._rules = [(distinct.index(rule.sign), rule) for rule in rules]
        self._gate = Gate(distinct)
        self._patterns = [(name, _compiled(name, pattern)) for name, pattern in patterns.items()]
        self._always = bool(patterns) or ENTITIES in wanted
        self.signs = None if self._always else [*distinct, disguises()]
        self._entities = EntityFinder(entity_models or {}) if ENTITIES in wanted else None

    def find(self, texts: list[str]) -> list[Sequence[Span]]:
        """Return the personal data of each text: spans in order of their start that do not overlap."""
        if self._always:
            return [self._found_in(text) for text in texts]
        result: list[Sequence[Span]] = []
        start = size = 0
        for number, text in enumerate(texts, 1):
            size += len(text)
            if size >= _BLOCK_CHARS or number == len(texts):
                result += self._found_in_block(texts[start:number])
                start, size = number, 0
        return result

    def _found_in_block(self, texts: list[str]) -> list[Sequence[Span]]:
        """Ask the gate for some texts at once: most show nothing, and each call costs as much as some hundred bytes."""
        if len(texts) > 1 and not self._gate.signs_in("\n".join(texts)):
            return [()] * len(texts)
        return [self._found_in(text) for text in texts]

    def _found_in(self, text: str) -> Sequence[Span]:
        shown = self._gate.signs_in(text)
        if not shown and not self._always:
            return ()
        if DISGUISED not in shown:
            return self._exact(with_plain_spaces(text) if shown else text, shown)
        plain, offsets = folded(text)
        spans = self._exact(plain, self._gate.signs_in(plain))
        if offsets is None:
            return spans
        return [Span(span.kind, offsets[span.start], offsets[span.end - 1] + 1) for span in spans]

    def _exact(self, text: str, shown: list[int]) -> list[Span]:
        spans: list[Span] = []
        for name, pattern in self._patterns:
            spans = merged(
                spans, name, (match.span() for match in pattern.finditer(text) if match.end() > match.start())
            )
        runs: list[Offsets] | None = None
        for sign, rule in self._rules:
            if sign not in shown:
                continue
            if rule.find is not None:
                found = rule.find(text)
            else:
                assert rule.find_in_runs is not None
                runs = number_runs(text) if runs is None else runs
                found = rule.find_in_runs(text, runs) if runs else []
            if found:
                spans = merged(spans, rule.kind, found)
        if self._entities is not None:
            for kind, found in self._entities.find(text):
                spans = merged(spans, kind, found)
        return spans


def _compiled(name: str, pattern: str) -> "re2._Regexp":
    key = f"patterns.{name} of the step personal"
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it does not compile"
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise DataError(f"{key} is {pattern!r}, which is no RE2 expression: {reason}") from None
    if compiled.fullmatch(""):
        raise DataError(f"{key} is {pattern!r}, which matches the empty text; expected one that needs a character")
    return compiled
