"""Which signs of personal data a text shows: one pass over its bytes for all of them.

Most texts hold none, so this pass is what the scan costs; the exact rules run on what it lets through. It may let too
much through and must never hold back what a rule would find.
"""

from collections.abc import Sequence

import re2

from tasks.data.personal.folding import disguises

DISGUISED = -1
"""Not a sign of the caller's: the text has characters that folding turns into others."""

_MEMORY_BYTES = 64 << 20


class Gate:
    """Some signs, compiled into one automaton (RE2): a pass is linear in the text, whatever it holds."""

    def __init__(self, signs: Sequence[str]) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.never_capture = True
        self._set = re2.Set.SearchSet(options)
        for sign in signs:
            self._set.Add(sign)
        self._disguised = self._set.Add(disguises())
        self._set.Compile()

    def signs_in(self, text: str) -> list[int]:
        """Return the positions of the signs that the text shows, and DISGUISED."""
        shown: list[int] | None = self._set.Match(text.encode())
        if not shown:
            return []
        return [DISGUISED if sign == self._disguised else sign for sign in shown]
