"""The engine's two entries in the comparison of near-duplicate searches, and what every entry has in common.

`product_stage` is what a build runs: sketches of the prompt and of the whole conversation and signatures of the answer,
then which rows are dropped (alike, and their answers too), then which rows are kept on one side of the split.
`one_text_a_row` is what the other libraries do: one sketch of one text a row, clustered once.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.data.division.index import Index

THREADS = 2
THRESHOLD = 0.8
_BATCH_ROWS = 2_048  # as the product's jobs


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        rows: rows that are duplicates.
        all_of_group: whether they are all rows of each group, or all but the one that stays.
        clusters: for each row, from 0, a name of its cluster; empty where a search has none.
    """

    rows: list[int]
    all_of_group: bool = False
    clusters: tuple[int, ...] = ()


Search = Callable[[], Found]


def read(shard: Path, *fields: str) -> Iterator[tuple[Any, ...]]:
    """Read fields of a shard's records."""
    import orjson

    with shard.open("rb") as file:
        for line in file:
            record = orjson.loads(line)
            yield tuple(record[field] for field in fields)


def product_stage(shards: list[Path], scratch: Path) -> Search:
    """Sketch conversations as the product's jobs do, and decide as its division does.

    Exact copies take part, as for every other entry; in a build they are gone by then.
    """
    import numpy as np

    from tasks.data.division.near_rows import NearRows
    from tasks.data.duplicates.components import smallest_linked
    from tasks.data.duplicates.signatures import sketch_conversations

    sketch_conversations(["imports"], ["imports"], THRESHOLD)

    def search() -> Found:
        stems = [scratch / shard.stem for shard in shards]
        with multiprocessing.get_context("fork").Pool(THREADS) as pool:
            counts = pool.starmap(_sketch_conversations, zip(shards, stems, strict=True))
        near = NearRows(_index_of(sum(counts)), stems, THRESHOLD)
        everyone = np.arange(sum(counts))
        to = near.conversations(np.ones(len(everyone), bool)).to
        links = near.clusters(to == everyone)
        clusters = smallest_linked(len(everyone), np.tile(everyone, 1 + len(links)), np.concatenate([to, *links]))
        return Found(everyone[to != everyone].tolist(), clusters=tuple(clusters.tolist()))

    return search


def _sketch_conversations(shard: Path, stem: Path) -> int:
    """Write the sketch files that a job writes beside its rows, and return the number of rows."""
    import numpy as np

    from tasks.data.duplicates.signatures import Sketch, sketch_conversations, write_signatures

    prompts: list[str] = []
    answers: list[str] = []
    parts = []
    rows = 0
    for prompt, answer in read(shard, "prompt", "answer"):
        prompts.append(prompt)
        answers.append(answer)
        rows += 1
        if len(prompts) == _BATCH_ROWS:
            parts.append(sketch_conversations(prompts, answers, THRESHOLD))
            prompts, answers = [], []
    parts.append(sketch_conversations(prompts, answers, THRESHOLD))
    Sketch.joined([asked for asked, _, _ in parts]).write(stem.with_name(f"{stem.name}.prompt"))
    Sketch.joined([whole for _, whole, _ in parts]).write(stem.with_name(f"{stem.name}.conversation"))
    write_signatures(np.concatenate([answer for _, _, answer in parts]), stem.with_name(f"{stem.name}.answer"))
    return rows


def _index_of(rows: int) -> "Index":
    """Return an index whose ids are hashes of row numbers, as good an order as hashes of content.

    Nothing but the order of ids is asked of it.
    """
    import numpy as np

    from tasks.data.division.index import Index

    ids = b"".join(hashlib.blake2b(b"%d" % row, digest_size=32).digest() for row in range(rows))
    return Index(
        id=np.frombuffer(ids, np.uint8).reshape(rows, 32),
        tie=np.zeros(rows, np.uint64),
        conversation=np.zeros((rows, 2), np.uint64),
        prompt=np.zeros((rows, 2), np.uint64),
        slice=np.zeros(rows, np.int32),
        origin=np.zeros(rows, np.int8),
        file=np.zeros(rows, np.int32),
        offset=np.zeros(rows, np.int64),
        length=np.zeros(rows, np.int32),
        slices=("default",),
        files=(),
    )


def one_text_a_row(shards: list[Path], scratch: Path) -> Search:
    """Sketch prompt and answer as one text, and cluster once."""
    import numpy as np

    from tasks.data.duplicates.clusters import find_clusters
    from tasks.data.duplicates.signatures import SketchFiles, sketch

    find_clusters(sketch(["imports", "imports"], THRESHOLD), np.arange(2), THRESHOLD)

    def search() -> Found:
        with multiprocessing.get_context("fork").Pool(THREADS) as pool:
            pool.starmap(_sketch_texts, [(shard, scratch / shard.stem) for shard in shards])
        stems = [scratch / shard.stem for shard in shards]
        keys = np.concatenate([np.load(f"{stem}.keys.npy") for stem in stems])
        clusters = find_clusters(SketchFiles(stems, THRESHOLD), keys, THRESHOLD)
        everyone = np.arange(len(keys))
        removed = clusters.representative != everyone
        return Found(everyone[removed].tolist(), clusters=tuple(clusters.component.tolist()))

    return search


def _sketch_texts(shard: Path, stem: Path) -> None:
    import numpy as np

    from tasks.data.duplicates.signatures import Sketch, sketch

    keys: list[int] = []
    parts: list[Sketch] = []
    batch: list[str] = []
    for row, text in read(shard, "row", "text"):
        keys.append(int.from_bytes(hashlib.blake2b(b"%d" % row, digest_size=8).digest(), "little"))
        batch.append(text)
        if len(batch) == _BATCH_ROWS:
            parts.append(sketch(batch, THRESHOLD))
            batch = []
    parts.append(sketch(batch, THRESHOLD))
    Sketch.joined(parts).write(stem)
    np.save(f"{stem}.keys.npy", np.array(keys, np.uint64))
