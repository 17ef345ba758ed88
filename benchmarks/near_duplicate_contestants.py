"""One near-duplicate search in a process of its own: python near_duplicate_contestants.py NAME DIRECTORY

DIRECTORY holds texts-0.jsonl and texts-1.jsonl ({"row", "text"}, one half of the rows each). A contestant may use two
threads or processes. Timed is what lies between the files and the knowledge of which rows are duplicates; imports and
the models that a contestant loads are not. Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

THREADS = 2
THRESHOLD = 0.8
Found = tuple[list[int], bool]
"""The rows found, and whether they are all rows of each group (else all but the one that stays)."""
Search = Callable[[], Found]


def read(shard: Path) -> Iterator[tuple[int, str]]:
    """Read rows and texts."""
    import orjson

    with shard.open("rb") as file:
        for line in file:
            record = orjson.loads(line)
            yield record["row"], record["text"]


def _ours(shards: list[Path], scratch: Path) -> Search:
    import numpy as np

    from tasks.data.duplicates.clusters import find_clusters
    from tasks.data.duplicates.signatures import SketchFiles, sketch

    find_clusters(sketch(["imports", "imports"], THRESHOLD), np.arange(2), THRESHOLD)

    def search() -> Found:
        with multiprocessing.get_context("fork").Pool(THREADS) as pool:
            pool.starmap(_sketch_shard, [(shard, scratch / shard.stem) for shard in shards])
        stems = [scratch / shard.stem for shard in shards]
        keys = np.concatenate([np.load(f"{stem}.keys.npy") for stem in stems])
        rows = np.concatenate([np.load(f"{stem}.rows.npy") for stem in stems])
        clusters = find_clusters(SketchFiles(stems, THRESHOLD), keys, THRESHOLD)
        removed = clusters.representative != np.arange(len(rows))
        return rows[removed].tolist(), False

    return search


def _sketch_shard(shard: Path, stem: Path) -> None:
    import hashlib

    import numpy as np

    from tasks.data.duplicates.signatures import Sketch, sketch

    rows: list[int] = []
    keys: list[int] = []
    parts: list[Sketch] = []
    batch: list[str] = []
    for row, text in read(shard):
        rows.append(row)
        keys.append(int.from_bytes(hashlib.blake2b(b"%d" % row, digest_size=8).digest(), "little"))
        batch.append(text)
        if len(batch) == 2_000:
            parts.append(sketch(batch, THRESHOLD))
            batch = []
    parts.append(sketch(batch, THRESHOLD))
    Sketch.joined(parts).write(stem)
    np.save(f"{stem}.rows.npy", np.array(rows))
    np.save(f"{stem}.keys.npy", np.array(keys, np.uint64))


_WORD_OR_CJK = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
_TOKENS: dict[str, Callable[[str], list[str]]] = {
    "words": str.split,
    "words and Chinese characters": lambda text: _WORD_OR_CJK.findall(text.lower()),
    "characters": list,
}


def _rensa_deduplicator(tokens: str) -> Callable[[list[Path], Path], Search]:
    """As its README does it."""

    def prepare(shards: list[Path], scratch: Path) -> Search:
        from rensa import RMinHashDeduplicator

        def search() -> Found:
            split = _TOKENS[tokens]
            deduplicator = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True)
            removed: list[int] = []
            for shard in shards:
                rows, texts = zip(*read(shard), strict=True)
                keep = deduplicator.add_pairs((str(row), split(text)) for row, text in zip(rows, texts, strict=True))
                removed += [row for row, kept in zip(rows, keep, strict=True) if not kept]
            return removed, False

        return search

    return prepare


def _rensa_batch(tokens: str, sketch: str, bands: int) -> Callable[[list[Path], Path], Search]:
    """As its own benchmark does it: all sketches in one matrix, then one question to the LSH index."""

    def prepare(shards: list[Path], scratch: Path) -> Search:
        from rensa import RMinHash, RMinHashLSH

        def search() -> Found:
            split = _TOKENS[tokens]
            rows, texts = zip(*(pair for shard in shards for pair in read(shard)), strict=True)
            full, rho = RMinHash.digest_matrix_from_token_sets, RMinHash.digest_matrix_from_token_sets_rho
            matrix = (rho if sketch == "rho" else full)([split(text) for text in texts], num_perm=128, seed=42)
            index = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=bands)
            flags = index.query_duplicate_flags_matrix_one_shot(matrix)
            return [row for row, flag in zip(rows, flags, strict=True) if flag], True

        return search

    return prepare


def _datatrove(words: int) -> Callable[[list[Path], Path], Search]:
    """Its MinHash example up to the lists of documents to remove, two local tasks."""

    def prepare(shards: list[Path], scratch: Path) -> Search:
        import numpy as np
        import spacy  # noqa: F401  its English tokenizer
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.dedup import (
            MinhashConfig,
            MinhashDedupBuckets,
            MinhashDedupCluster,
            MinhashDedupSignature,
        )
        from datatrove.pipeline.readers import JsonlReader

        config = MinhashConfig(n_grams=words)
        inputs = scratch / "input"
        inputs.mkdir()
        for shard in shards:
            (inputs / shard.name).symlink_to(shard)

        def run(step: list[object], tasks: int, name: str) -> None:
            LocalPipelineExecutor(
                step, tasks=tasks, workers=THREADS, logging_dir=str(scratch / "logs" / name), start_method="fork"
            ).run()

        def search() -> Found:
            reader = JsonlReader(str(inputs), glob_pattern="*.jsonl", id_key="row")
            signatures, buckets, remove = (str(scratch / name) for name in ("signatures", "buckets", "remove"))
            run([reader, MinhashDedupSignature(signatures, config=config, language="en")], len(shards), "signatures")
            run([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets, "buckets")
            run([MinhashDedupCluster(buckets, remove, config=config)], 1, "clusters")
            removed: list[int] = []
            for rank, shard in enumerate(sorted(shards)):
                places = np.fromfile(Path(remove) / f"{rank:06d}.remove", "<u4")
                rows = np.array([row for row, _ in read(shard)])
                removed += rows[places].tolist()
            return removed, False

        return search

    return prepare


def _text_dedup(words: int) -> Callable[[list[Path], Path], Search]:
    """Its MinHash command, which also writes the data set without duplicates."""

    def prepare(shards: list[Path], scratch: Path) -> Search:
        from datasets import load_from_disk

        command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--split", "train", "--column", "text"]
        command += ["--data_dir", str(shards[0].parent), "--cache_dir", str(scratch / "cache"), "--hash_func", "xxh3"]
        command += ["--output", str(scratch / "output"), "--num_proc", str(THREADS), "--threshold", str(THRESHOLD)]
        command += ["--ngram", str(words), "--min_length", "0"]

        def search() -> Found:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            kept = set(load_from_disk(str(scratch / "output"))["row"])
            rows = [row for shard in shards for row, _ in read(shard)]
            return [row for row in rows if row not in kept], False

        return search

    return prepare


def _semhash(shards: list[Path], scratch: Path) -> Search:
    """Its own code and search index, with another model: its own comes from a hub.

    Random vectors for a byte-pair vocabulary of the rows, mean-pooled as the model's are: as fast, and near duplicates
    still lie near each other.
    """
    import numpy as np
    from model2vec import StaticModel
    from semhash import SemHash
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sample = [text for _, (_, text) in zip(range(5_000), read(shards[0]), strict=False)]
    tokenizer.train_from_iterator(
        sample, trainers.BpeTrainer(vocab_size=8_000, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
    )
    vectors = np.random.default_rng(1).standard_normal((tokenizer.get_vocab_size(), 256)).astype(np.float32)
    model = StaticModel(vectors, tokenizer, normalize=True)

    def search() -> Found:
        rows, texts = zip(*(pair for shard in shards for pair in read(shard)), strict=True)
        records = [{"text": text, "row": row} for row, text in zip(rows, texts, strict=True)]
        index = SemHash.from_records(records, columns=["text"], model=model)
        kept = {record["row"] for record in index.self_deduplicate(threshold=0.95).selected}
        return [row for row in rows if row not in kept], False

    return search


CONTESTANTS: dict[str, Callable[[list[Path], Path], Search]] = {
    "ours": _ours,
    "rensa deduplicator, words": _rensa_deduplicator("words"),
    "rensa deduplicator, words and Chinese characters": _rensa_deduplicator("words and Chinese characters"),
    "rensa batch rho, words": _rensa_batch("words", "rho", 8),
    "rensa batch full, words and Chinese characters": _rensa_batch("words and Chinese characters", "full", 16),
    "rensa batch full, characters": _rensa_batch("characters", "full", 16),
    "semhash": _semhash,
    "datatrove, 5 words": _datatrove(5),
    "text-dedup, 5 words": _text_dedup(5),
    "text-dedup, 1 word": _text_dedup(1),
}
SLOW = frozenset(name for name in CONTESTANTS if name.startswith(("semhash", "datatrove", "text-dedup")))
"""Some hundred rows a second: they get the first SLOW_ROWS rows, lest a round take an hour."""
SLOW_ROWS = 10_000


def main() -> None:
    """Run one contestant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    shards = sorted(arguments.directory.resolve().glob("texts-*.jsonl"))
    scratch = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        search = CONTESTANTS[arguments.name](shards, scratch)
        started = time.perf_counter()
        rows, all_of_group = search()
        seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(scratch)
    used = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {"seconds": seconds, "peak_mb": max(used), "all_of_group": all_of_group, "rows": rows}
    print(json.dumps(result), file=os.fdopen(os.dup(1), "w"))


if __name__ == "__main__":
    main()
