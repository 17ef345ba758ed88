"""Rows that must not be trained on, as sketches, and whether other rows are alike one of them."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from tasks.data.rows import Row, answered_text, asked_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.data.duplicates.signatures import Sketch

_BLOCK_ROWS = 2_048


class HeldOut:
    """Sketches of rows, made once; their texts are read a block at a time and forgotten.

    Args:
        rows: rows that must not be trained on.
        similarity: Jaccard similarity of shingles from which two texts are near duplicates; 0: none are.
    """

    def __init__(self, rows: Iterable[Row], similarity: float) -> None:
        self._similarity = similarity
        self._sketches = _sketched(rows, similarity) if similarity else ()

    def alike(self, rows: list[Row]) -> "NDArray[np.bool_]":
        """Say (rows,) which rows are near duplicates of one, by prompt or by conversation, as clusters are made."""
        import numpy as np

        from tasks.data.duplicates.clusters import find_matches
        from tasks.data.duplicates.signatures import sketch_conversations

        found = np.zeros(len(rows), bool)
        if not self._sketches or not rows:
            return found
        prompts, answers = [asked_text(row) for row in rows], [answered_text(row) for row in rows]
        asked = sketch_conversations(prompts, answers, self._similarity)[:2]
        for ours, theirs in zip(asked, self._sketches, strict=True):
            found |= find_matches(theirs, np.arange(theirs.rows), ours, self._similarity).position >= 0
        return found


def _sketched(rows: Iterable[Row], similarity: float) -> "tuple[Sketch, Sketch]":
    """Return the sketches of the prompts and of the whole conversations."""
    from tasks.data.duplicates.signatures import Sketch, sketch_conversations

    prompts, conversations, remaining = list[Sketch](), list[Sketch](), iter(rows)
    while block := list(islice(remaining, _BLOCK_ROWS)):
        asked, answered = [asked_text(row) for row in block], [answered_text(row) for row in block]
        prompt, conversation, _ = sketch_conversations(asked, answered, similarity)
        prompts.append(prompt)
        conversations.append(conversation)
    if not prompts:
        prompt, conversation, _ = sketch_conversations([], [], similarity)
        return prompt, conversation
    return Sketch.joined(prompts), Sketch.joined(conversations)
