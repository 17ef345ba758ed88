"""Which steps have nothing to do with a row: one pass over its bytes (RE2) for the signs of all of them.

Most rows show no sign of what most steps look for, so this pass is what those steps cost.
"""

from collections.abc import Iterable, Sequence

import re2

from tasks.data.cleaning.step import Step, texts_of
from tasks.data.rows import Row

TEXT_END = "\x00"
"""Stands after each text of a row; signs may name it. No text of a row holds it."""

_MEMORY_BYTES = 64 << 20


class Gate:
    """The signs of some steps, compiled into one automaton: a pass is linear in the text, whatever it holds.

    Attributes:
        guarded: places of the steps that say what their signs are; the others look at every row.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.never_capture = True
        self._set = re2.Set.SearchSet(options)
        self._step_of: list[int] = []
        self.guarded: set[int] = set()
        for place, step in enumerate(steps):
            signs = getattr(step, "signs", None)
            if signs is None:
                continue
            self.guarded.add(place)
            for sign in signs:
                self._set.Add(sign)
                self._step_of.append(place)
        if self._step_of:
            self._set.Compile()

    def rows_for(self, rows: Sequence[Row]) -> dict[int, set[int]]:
        """Return, for each guarded step, the places of the rows that show one of its signs."""
        found: dict[int, set[int]] = {place: set() for place in self.guarded}
        if not self._step_of:
            return found
        match, step_of = self._set.Match, self._step_of
        for number, row in enumerate(rows):
            shown = match(TEXT_END.join([*texts_of(row), ""]).encode())
            for sign in shown or ():
                found[step_of[sign]].add(number)
        return found


def ranges_of(characters: Iterable[str]) -> str:
    """Spell characters as the inside of an RE2 character class."""
    parts: list[str] = []
    codes = sorted(map(ord, characters))
    first = 0
    for index, code in enumerate(codes):
        if index + 1 == len(codes) or codes[index + 1] != code + 1:
            parts.append(f"\\x{{{codes[first]:x}}}-\\x{{{code:x}}}")
            first = index + 1
    return "".join(parts)
