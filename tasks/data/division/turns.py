"""Turns of one dialogue that stand in several rows: what one row says in whole is how another begins.

A log of a chat has a row for each answer, each with all that was said before: [ask, answer], [ask, answer, ask again,
second answer]. Their prompts differ, and yet the second row holds the first one's answer. Each row is linked to the
longest row that it continues.

What was said is the conversation but for case, white space and the system's message, which may tell each turn another
time of day. Of a preference pair it is the chosen answer that was said.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contracts.twins import MESSAGE_START

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.data.division.index import Index

OPENING_PROMPTS = 16
"""A row that is continued by more prompts than this is how many dialogues open ("Hi" → "Hello, how can I help?").

One dialogue branches where somebody asks again or edits a question, a few times; a greeting goes on in as many ways as
there are people. Linking those would put half a log into one cluster.
"""

_COLUMNS = ("begins_row", "begins", "said_row", "said")


@dataclass(frozen=True)
class Turns:
    """How rows begin, and what they say in whole: nothing for a question with its answer.

    Attributes:
        begins_row: (beginnings,) the row of each beginning that ends in an answer, ascending; shortest first in a row.
        begins: (beginnings, 2) 128-bit hash of it.
        said_row: (exceptions,) rows with a system message or a rejected answer, whose hash of the conversation is not
            that of what was said.
        said: (exceptions, 2) the hash of what was said in those.
    """

    begins_row: "NDArray[np.int32]"
    begins: "NDArray[np.uint64]"
    said_row: "NDArray[np.int32]"
    said: "NDArray[np.uint64]"

    @classmethod
    def joined(cls, parts: "list[dict[str, Any]]", rows: list[int]) -> "Turns":
        """Return the turns of several files, whose columns (`TurnHashes.columns`) count rows from 0 each."""
        import numpy as np

        first = np.cumsum([0, *rows[:-1]]).astype(np.int32)
        return cls(
            *(
                np.concatenate(
                    [
                        part[name] + at if name.endswith("_row") else part[name]
                        for part, at in zip(parts, first, strict=True)
                    ]
                )
                for name in _COLUMNS
            )
        )


class TurnHashes:
    """Collects the turns of the rows of one file."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {"begins": [], "said": []}
        self._hashes = {"begins": bytearray(), "said": bytearray()}

    def add(self, row: int, conversation: str, is_pair: bool) -> None:
        """Hash how a row begins and, where that is not its conversation's hash, what it says.

        Args:
            row: its number in the file; numbers ascend.
            conversation: its folded messages, with the chosen answer.
            is_pair: there is a rejected answer too.
        """
        messages = conversation.split(MESSAGE_START)[1:]
        has_system = messages[0].startswith("system ")
        hasher = hashlib.blake2b(digest_size=16)
        last = len(messages) - 1
        space = ""
        for number, message in enumerate(messages):
            if has_system and number == 0:
                continue
            text = message.removesuffix(" ")  # what stands between two messages belongs to the longer beginning
            hasher.update(f"{space}{MESSAGE_START}{text}".encode())
            space = " "
            if number < last and (text == "assistant" or text.startswith("assistant ")):
                self._append("begins", row, hasher.copy().digest())
        if has_system or is_pair:
            self._append("said", row, hasher.digest())

    def _append(self, kind: str, row: int, digest: bytes) -> None:
        self._rows[kind].append(row)
        self._hashes[kind] += digest

    def columns(self) -> dict[str, Any]:
        """Return the arrays of `Turns` for this file."""
        import numpy as np

        columns: dict[str, Any] = {}
        for kind, rows in self._rows.items():
            columns[f"{kind}_row"] = np.array(rows, np.int32)
            columns[kind] = np.frombuffer(self._hashes[kind], np.uint64).reshape(-1, 2)
        return columns


def dialogue_links(index: "Index", stands_for: "NDArray[np.int64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Link each row to the longest one that it continues: two arrays (links,) of rows that belong together.

    Args:
        index: the rows and their turns.
        stands_for: (rows,) the row that is named in place of one that was dropped as its duplicate; else itself. What
            a duplicate says is continued, and is said, by the row that stands for it.
    """
    import numpy as np

    nothing = np.zeros(0, np.int64)
    turns = index.turns
    if turns is None or not len(turns.begins):
        return nothing, nothing
    said = index.conversation.copy()
    said[turns.said_row] = turns.said
    speakers = np.flatnonzero(np.isin(said[:, 0], turns.begins[:, 0]))
    said = said[speakers]
    group = equal_groups(np.concatenate([said, turns.begins]))
    speaker_group, begin_group = group[: len(speakers)], group[len(speakers) :]
    head = np.full(len(group), -1, np.int64)
    head[speaker_group] = speakers  # any of those who say the same: all of them are linked below
    found = head[begin_group] >= 0
    child, parent_group = turns.begins_row[found].astype(np.int64), begin_group[found]
    longest = np.ones(len(child), bool)
    longest[:-1] = child[1:] != child[:-1]
    child, parent_group = stands_for[child[longest]], parent_group[longest]
    is_opening = _prompts_of_groups(parent_group, index.prompt[child], len(group)) > OPENING_PROMPTS
    linked = ~is_opening[parent_group]
    child, parent_group = child[linked], parent_group[linked]
    is_continued = np.zeros(len(group), bool)
    is_continued[parent_group] = True
    same = is_continued[speaker_group]
    left = np.concatenate([child, stands_for[speakers[same]]])
    right = stands_for[np.concatenate([head[parent_group], head[speaker_group[same]]])]
    is_link = left != right
    return left[is_link], right[is_link]


def _prompts_of_groups(group: "NDArray[np.int64]", prompt: "NDArray[np.uint64]", groups: int) -> "NDArray[np.int64]":
    """Return (groups,) how many different prompts the rows of each group have."""
    import numpy as np

    order = np.lexsort((prompt[:, 1], prompt[:, 0], group))
    prompt, group = prompt[order], group[order]
    is_new = np.ones(len(group), bool)
    is_new[1:] = (group[1:] != group[:-1]) | (prompt[1:] != prompt[:-1]).any(axis=1)
    counts: NDArray[np.int64] = np.bincount(group[is_new], minlength=groups)
    return counts


def equal_groups(keys: "NDArray[np.uint64]") -> "NDArray[np.int64]":
    """Return (n,) the group of each of (n, 2) hashes: equal ones have one number, from 0."""
    import numpy as np

    order = np.lexsort((keys[:, 1], keys[:, 0]))
    is_new = np.zeros(len(keys), bool)
    is_new[:1] = True
    for half in (0, 1):  # by halves: a copy of all keys in order would be the largest array there is
        ordered = keys[order, half]
        is_new[1:] |= ordered[1:] != ordered[:-1]
    group = np.empty(len(keys), np.int64)
    group[order] = np.cumsum(is_new) - 1
    return group
