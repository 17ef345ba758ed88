"""Near duplicates of an index: clusters of conversations are reused only where they are those that are asked for."""

import random

import numpy as np
import pytest

from tasks.data.chunk import clean_chunk
from tasks.data.division.index import EVALUATION, SOURCES, IndexedFile, join_indexes
from tasks.data.division.near_rows import NearRows
from tasks.data.rows import build_row, row_line


def words(draw, count):
    return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(count))


def row(prompt, answer):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return build_row(messages, "a.jsonl", "default")


@pytest.fixture
def near_of(tmp_path):
    """Index rows of the sources and rows of an evaluation set, with their sketches."""

    def run(sources, evaluation):
        parts, stems = [], []
        for origin, rows in ((SOURCES, sources), (EVALUATION, evaluation)):
            stem = tmp_path / f"chunk-{origin}"
            (tmp_path / "rows.jsonl").write_bytes(b"".join(map(row_line, rows)))
            job = {"rows": str(tmp_path / "rows.jsonl"), "out": str(stem), "steps": [], "tokenizer": None}
            clean_chunk({**job, "min_answer_chars": 1, "max_row_chars": 9_999, "erased": [], "similarity": 0.8})
            names = (f"{stem.name}.rows", f"{stem.name}.rows.npz")
            parts.append(IndexedFile(*(tmp_path / name for name in names), ("default",), origin))
            stems.append(stem)
        index = join_indexes(parts)
        return index, NearRows(index, stems, 0.8)

    return run


@pytest.fixture
def searches(monkeypatch):
    """Count how often near duplicates are looked for."""
    from tasks.data.duplicates import clusters

    calls = []
    search = clusters.find_clusters
    monkeypatch.setattr(clusters, "find_clusters", lambda *given: calls.append(given) or search(*given))
    return calls


def test_rows_of_two_origins_that_are_alike_by_conversation_alone_are_one_cluster(near_of):
    """Each origin is looked through for duplicates by itself, and in either order; the split is over both."""
    draw = random.Random(1)
    answers = [words(draw, 60) for _ in range(3)]
    asked = [row(words(draw, 3), answer) for answer in answers]
    index, near = near_of(asked, [row(words(draw, 3), answer) for answer in reversed(answers)])
    everyone = np.ones(6, bool)
    for origins in ((SOURCES, EVALUATION), (EVALUATION, SOURCES), (SOURCES,), (EVALUATION,), ()):
        for origin in origins:
            near.conversations(index.origin == origin)
        prompts, conversations = near.clusters(everyone)
        assert prompts.tolist() == list(range(6))
        assert [conversations[5 - place] == conversations[place] for place in range(3)] == [True] * 3
        assert len(set(conversations.tolist())) == 3


def test_clusters_of_one_origin_are_not_looked_for_again(near_of, searches):
    draw = random.Random(2)
    answer = words(draw, 60)
    index, near = near_of([row(words(draw, 3), answer), row(words(draw, 3), answer), row("q", words(draw, 20))], [])
    everyone = np.ones(len(index), bool)
    near.conversations(everyone)
    before = len(searches)
    _, conversations = near.clusters(everyone)
    assert len(searches) == before + 1, "the prompts"
    assert conversations[0] == conversations[1] != conversations[2]


def test_a_cluster_is_named_by_a_row_that_is_left(near_of):
    """The clusters of conversations were found before near duplicates were dropped."""
    draw = random.Random(3)
    rows = []
    for _ in range(10):
        ask, answer = words(draw, 8), words(draw, 80)
        rows += [row(ask, answer), row(f"{ask} {words(draw, 1)}", answer), row(words(draw, 3), answer)]
    index, near = near_of(rows, [])
    linked = near.conversations(np.ones(len(index), bool))
    left = linked.to == np.arange(len(index))
    assert 0 < left.sum() < len(index)
    for names in near.clusters(left):
        assert left[names[left]].all()
