"""One near-duplicate search in a process of its own: python near_duplicate_contestants.py NAME DIRECTORY

DIRECTORY holds the rows twice, one half of them in each of two files: texts/*.jsonl ({"row", "text"}) and, for the
product's own stage, conversations/*.jsonl ({"prompt", "answer"}). A contestant may use two threads or processes. Timed
is what lies between the files and the knowledge of which rows are duplicates; imports and the models that a contestant
loads are not. Prints one JSON object.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from near_duplicate_ours import THREADS, THRESHOLD, Found, Search, one_text_a_row, product_stage, read

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
                rows, texts = zip(*read(shard, "row", "text"), strict=True)
                keep = deduplicator.add_pairs((str(row), split(text)) for row, text in zip(rows, texts, strict=True))
                removed += [row for row, kept in zip(rows, keep, strict=True) if not kept]
            return Found(removed)

        return search

    return prepare


def _rensa_batch(tokens: str, sketch: str, bands: int) -> Callable[[list[Path], Path], Search]:
    """As its own benchmark does it: all sketches in one matrix, then one question to the LSH index."""

    def prepare(shards: list[Path], scratch: Path) -> Search:
        from rensa import RMinHash, RMinHashLSH

        def search() -> Found:
            split = _TOKENS[tokens]
            rows, texts = zip(*(pair for shard in shards for pair in read(shard, "row", "text")), strict=True)
            full, rho = RMinHash.digest_matrix_from_token_sets, RMinHash.digest_matrix_from_token_sets_rho
            matrix = (rho if sketch == "rho" else full)([split(text) for text in texts], num_perm=128, seed=42)
            index = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=bands)
            flags = index.query_duplicate_flags_matrix_one_shot(matrix)
            return Found([row for row, flag in zip(rows, flags, strict=True) if flag], all_of_group=True)

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
                rows = np.array([row for (row,) in read(shard, "row")])
                removed += rows[places].tolist()
            return Found(removed)

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
            rows = [row for shard in shards for (row,) in read(shard, "row")]
            return Found([row for row in rows if row not in kept])

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
    sample = [text for _, (text,) in zip(range(5_000), read(shards[0], "text"), strict=False)]
    tokenizer.train_from_iterator(
        sample, trainers.BpeTrainer(vocab_size=8_000, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
    )
    vectors = np.random.default_rng(1).standard_normal((tokenizer.get_vocab_size(), 256)).astype(np.float32)
    model = StaticModel(vectors, tokenizer, normalize=True)

    def search() -> Found:
        rows, texts = zip(*(pair for shard in shards for pair in read(shard, "row", "text")), strict=True)
        records = [{"text": text, "row": row} for row, text in zip(rows, texts, strict=True)]
        index = SemHash.from_records(records, columns=["text"], model=model)
        kept = {record["row"] for record in index.self_deduplicate(threshold=0.95).selected}
        return Found([row for row in rows if row not in kept])

    return search


PRODUCT = "ours"
ONE_TEXT = "ours, sketch and clusters of one text a row"
CONTESTANTS: dict[str, Callable[[list[Path], Path], Search]] = {
    PRODUCT: product_stage,
    ONE_TEXT: one_text_a_row,
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
    kind = "conversations" if arguments.name == PRODUCT else "texts"
    shards = sorted((arguments.directory.resolve() / kind).glob("*.jsonl"))
    scratch = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        search = CONTESTANTS[arguments.name](shards, scratch)
        started = time.perf_counter()
        found = search()
        seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(scratch)
    result = {"seconds": seconds, **asdict(found)}
    print(json.dumps(result), file=os.fdopen(os.dup(1), "w"))


if __name__ == "__main__":
    main()
