"""The benchmark's rows: the truth about them is true, and the engine finds what was planted."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.data.duplicates.clusters import find_clusters
from tasks.data.duplicates.signatures import sketch

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"
ROWS, THRESHOLD = 4_000, 0.8


@pytest.fixture(scope="module")
def data_rows():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("data_rows")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def planted(data_rows, tmp_path_factory):
    files = data_rows.write_rows(tmp_path_factory.mktemp("planted"), ROWS)
    return [
        [json.loads(line) for line in path.open(encoding="utf-8")] for path in (files.rows, files.pairs, files.personal)
    ]


def luhn(digits):
    return sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits))) % 10 == 0


def test_the_same_seed_gives_the_same_rows_and_another_seed_gives_others(data_rows):
    first, again, other = (list(itertools.islice(data_rows.generate_rows(seed), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_languages_kinds_and_personal_data_are_planted(data_rows, planted):
    rows, pairs, personal = planted
    assert len(rows) == ROWS
    assert {pair["kind"] for pair in pairs} == {"exact", *data_rows._EDITS}
    assert {pair["language"] for pair in pairs} == {"en", "zh", "code"}
    assert {found["kind"] for found in personal} == set(data_rows._PERSONAL)
    assert 0.12 < len(pairs) / ROWS < 0.18


def test_pairs_have_the_similarity_that_is_written_beside_them(data_rows, planted):
    rows, pairs, _ = planted
    for pair in pairs[:200]:
        copy, original = rows[pair["row"]], rows[pair["of"]]
        sets = [data_rows.character_shingles(data_rows.text_of(row)) for row in (copy, original)]
        assert pair["jaccard"] == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]), abs=1e-4)
        assert pair["of"] < pair["row"]
        assert (copy == original) == (pair["kind"] == "exact") or pair["jaccard"] > 0.9


def test_personal_data_stand_in_their_rows_and_their_checksums_hold(data_rows, planted):
    rows, _, personal = planted
    for found in personal:
        assert found["value"] in data_rows.text_of(rows[found["row"]])
    cards = [found["value"] for found in personal if found["kind"] == "bank_card"]
    assert cards and all(luhn(card) for card in cards)
    weights = [2 ** (17 - place) % 11 for place in range(18)]  # ISO 7064, MOD 11-2
    for found in personal:
        if found["kind"] == "china_id":
            digits = [10 if char == "X" else int(char) for char in found["value"]]
            assert sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % 11 == 1


def test_the_engine_finds_the_planted_near_duplicates_and_takes_little_else(data_rows, planted):
    rows, pairs, _ = planted
    keys = np.random.default_rng(3).permutation(ROWS).astype(np.uint64)
    found = find_clusters(sketch([data_rows.text_of(row) for row in rows], THRESHOLD), keys, THRESHOLD)
    together = [found.component[pair["row"]] == found.component[pair["of"]] for pair in pairs]
    for language in ("en", "zh", "code"):
        near = [
            hit
            for hit, pair in zip(together, pairs, strict=True)
            if pair["language"] == language and pair["kind"] != "exact" and pair["jaccard"] >= THRESHOLD
        ]
        assert len(near) > 40
        assert np.mean(near) >= 0.95, language
    assert all(hit for hit, pair in zip(together, pairs, strict=True) if pair["kind"] == "exact")
    in_groups = {pair["row"] for pair in pairs} | {pair["of"] for pair in pairs}
    dropped = np.flatnonzero(found.representative != np.arange(ROWS))
    assert np.mean([row in in_groups for row in dropped]) >= 0.99
