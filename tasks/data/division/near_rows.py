"""Near duplicates among the rows of an index: rows that are dropped, and prompts that must not be divided."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.division.index import Index
from tasks.data.division.split import Linked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.data.duplicates.signatures import SketchFiles

_ROUNDS = 8
_BATCH_PAIRS = 1 << 16


class NearRows:
    """Finds near duplicates by the sketches that stand beside the files of an index.

    Attributes:
        index: the rows.
        stems: beginnings of the names of the sketches, a file of the index each.
        similarity: Jaccard similarity of shingles from which two texts are near duplicates.
    """

    def __init__(self, index: Index, stems: Sequence[Path], similarity: float) -> None:
        import numpy as np

        self.index, self.similarity = index, similarity
        self._stems = list(stems)
        self._rank = index.rank
        self._compared = np.zeros(len(index), bool), np.arange(len(index))  # by conversation: which rows; clusters

    def clusters(self, among: "NDArray[np.bool_]") -> "list[NDArray[np.int64]]":
        """Return (rows,) the row that names each row's cluster of alike prompts, and that of alike conversations.

        A question that is asked again in other words, with the same long answer, is alike by its conversation.
        """
        from tasks.data.duplicates.clusters import find_clusters

        prompts = find_clusters(self._sketches("prompt"), self._rank, self.similarity, among).component
        compared, conversations = self._compared
        if not compared[among].all():  # rows of several origins, which were compared apart
            conversations = find_clusters(self._sketches("conversation"), self._rank, self.similarity, among).component
        return [prompts, conversations]

    def conversations(self, among: "NDArray[np.bool_]") -> Linked:
        """Return for each row the one that it is a near duplicate of: the whole is alike, and so is the answer.

        The second condition keeps apart what shares most of its text and says another thing, as several questions about
        one long passage do.
        """
        import numpy as np

        from tasks.data.duplicates.clusters import find_clusters

        to, similarity = np.arange(len(self.index)), np.ones(len(self.index), np.float32)
        sketches, left = self._sketches("conversation"), among
        for _ in range(_ROUNDS):
            found = find_clusters(sketches, self._rank, self.similarity, left)
            if left is among:
                self._compared = among, found.component
            rows = np.flatnonzero(found.representative != np.arange(len(self.index)))
            if not len(rows):
                break
            same = self._answers_agree(rows, found.representative[rows])
            to[rows[same]] = found.representative[rows[same]]
            similarity[rows[same]] = found.similarity[rows[same]]
            left = np.zeros(len(self.index), bool)
            left[rows[~same]] = True  # compared among themselves: several pairs may share one passage
        return Linked(to, similarity)

    def _answers_agree(self, rows: "NDArray[np.int64]", others: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        import numpy as np

        from tasks.data.duplicates.signatures import SignatureFiles, accepted_from, similarity

        answers = SignatureFiles(self._files("answer"))
        agree = np.zeros(len(rows), bool)
        for start in range(0, len(rows), _BATCH_PAIRS):
            here = slice(start, start + _BATCH_PAIRS)
            alike = similarity(answers.signatures_of(rows[here]), answers.signatures_of(others[here]))
            agree[here] = alike >= accepted_from(self.similarity)
        return agree

    def _sketches(self, kind: str) -> "SketchFiles":
        from tasks.data.duplicates.signatures import SketchFiles

        return SketchFiles(self._files(kind), self.similarity)

    def _files(self, kind: str) -> list[Path]:
        return [stem.with_name(f"{stem.name}.{kind}") for stem in self._stems]
