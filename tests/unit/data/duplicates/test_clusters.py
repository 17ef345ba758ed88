"""Clusters of near duplicates: complete, linear, and the same whatever the order of rows, files and processes."""

import itertools
import random
import time

import numpy as np
import pytest

from tasks.data.duplicates.clusters import find_clusters, find_matches
from tasks.data.duplicates.signatures import SLOTS, Sketch, SketchFiles, accepted_from, band_count, similarity, sketch

THRESHOLD = 0.8
BANDS = band_count(THRESHOLD)


def random_text(rng, words=60):
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(words))


def with_words_replaced(text, count, rng):
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = random_text(rng, 1)
    return " ".join(words)


def families(seed, count=120):
    """Texts in families of one to six near duplicates, some of which are chains, shuffled with their keys."""
    rng = random.Random(seed)
    texts, family = [], []
    for number in range(count):
        last = random_text(rng)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            texts.append(last)
            family.append(number)
            last = with_words_replaced(last, rng.choice((0, 1, 2)), rng)
    keys = np.array([rng.getrandbits(64) for _ in texts], np.uint64)
    return texts, np.array(family), keys


def in_words_of_keys(clusters, keys):
    """What was found, told apart from positions: key → (key of component, key of representative, similarity)."""
    return {
        int(key): (int(keys[component]), int(keys[representative]), float(value))
        for key, component, representative, value in zip(
            keys, clusters.component, clusters.representative, clusters.similarity, strict=True
        )
    }


def test_families_are_found_whole_and_apart():
    texts, family, keys = families(1)
    found = find_clusters(sketch(texts, THRESHOLD), keys, THRESHOLD)
    together = found.component[:, None] == found.component[None, :]
    truly = family[:, None] == family[None, :]
    assert not (together & ~truly).any(), "two families in one cluster"
    assert together[truly].mean() > 0.99


def test_the_smallest_key_names_the_component_and_stands_for_itself():
    texts, _, keys = families(2)
    found = find_clusters(sketch(texts, THRESHOLD), keys, THRESHOLD)
    for component in np.unique(found.component):
        members = np.flatnonzero(found.component == component)
        assert keys[component] == keys[members].min()
        assert found.representative[component] == component
    assert (found.representative[found.representative] == found.representative).all(), (
        "a dropped row stands for another"
    )


def test_a_row_is_dropped_only_for_one_that_its_own_signature_agrees_with():
    texts, _, keys = families(3)
    sketches = sketch(texts, THRESHOLD)
    found = find_clusters(sketches, keys, THRESHOLD)
    dropped = np.flatnonzero(found.representative != np.arange(len(texts)))
    estimates = similarity(sketches.signatures[dropped], sketches.signatures[found.representative[dropped]])
    assert len(dropped) > 50
    assert (estimates >= accepted_from(THRESHOLD)).all()
    assert (estimates == found.similarity[dropped]).all()
    assert (found.component[dropped] == found.component[found.representative[dropped]]).all()


@pytest.mark.parametrize("seed", range(8))
def test_neither_the_order_of_rows_nor_the_cut_into_files_changes_anything(tmp_path, seed):
    texts, _, keys = families(100 + seed, count=60)
    expected = in_words_of_keys(find_clusters(sketch(texts, THRESHOLD), keys, THRESHOLD), keys)
    rng = random.Random(seed)
    order = rng.sample(range(len(texts)), len(texts))
    cuts = sorted({0, len(texts), *rng.choices(range(len(texts)), k=rng.randint(0, 6))})
    stems = []
    for start, end in itertools.pairwise(cuts):
        stems.append(tmp_path / f"chunk-{start}")
        sketch([texts[place] for place in order[start:end]], THRESHOLD).write(stems[-1])
    found = in_words_of_keys(find_clusters(SketchFiles(stems, THRESHOLD), keys[order], THRESHOLD), keys[order])
    assert found == expected


def test_a_chain_is_one_component_but_its_ends_do_not_stand_for_each_other():
    rng, least = random.Random(7), accepted_from(THRESHOLD)
    chain = [random_text(rng, 40)]
    for step in range(12):
        words = chain[-1].split()
        words[step * 3 : step * 3 + 2] = random_text(rng, 2).split()
        chain.append(" ".join(words))
    keys = np.arange(len(chain), dtype=np.uint64)
    sketches = sketch(chain, THRESHOLD)
    found = find_clusters(sketches, keys, THRESHOLD)
    assert (found.component == 0).all()
    kept = np.unique(found.representative)
    assert 2 < len(kept) < len(chain)
    for place, row in enumerate(kept):  # no two that are kept are alike
        before = sketches.signatures[kept[:place]]
        assert (similarity(before, np.broadcast_to(sketches.signatures[row], before.shape)) < least).all()


def test_rows_that_do_not_take_part_stand_for_themselves_and_link_nobody():
    texts = ["one and the same text of some length"] * 5
    among = np.array([True, False, True, False, True])
    found = find_clusters(sketch(texts, THRESHOLD), np.array([5, 1, 4, 2, 3], np.uint64), THRESHOLD, among)
    assert found.representative.tolist() == [4, 1, 4, 3, 4]
    assert found.component.tolist() == [4, 1, 4, 3, 4]


@pytest.mark.parametrize("rows", [0, 1])
def test_none_and_one_row_are_clusters_of_their_own(rows):
    found = find_clusters(sketch(["text"] * rows, THRESHOLD), np.zeros(rows, np.uint64), THRESHOLD)
    assert found.representative.tolist() == found.component.tolist() == list(range(rows))


def test_as_many_keys_as_rows_are_asked_for():
    with pytest.raises(ValueError, match="2 sketches and 1 keys"):
        find_clusters(sketch(["a", "b"], THRESHOLD), np.zeros(1, np.uint64), THRESHOLD)


def test_sketches_of_another_threshold_are_refused():
    one, other = sketch(["a text"], THRESHOLD), sketch(["a text"], 0.5)
    keys = np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match=r"48 bands; the threshold 0.8 takes 16"):
        find_clusters(other, keys, THRESHOLD)
    with pytest.raises(ValueError, match=r"48 bands; the threshold 0.8 takes 16"):
        find_matches(one, keys, other, THRESHOLD)


def test_200_000_equal_rows_are_one_cluster_in_seconds():
    one = sketch(["the same text in every row, as hostile input may be"], THRESHOLD)
    rows = 200_000
    many = Sketch(np.repeat(one.band_hashes, rows, axis=1), np.repeat(one.signatures, rows, axis=0))
    keys = np.random.default_rng(1).permutation(rows).astype(np.uint64)
    started = time.monotonic()
    found = find_clusters(many, keys, THRESHOLD)
    assert time.monotonic() - started < 20
    assert (found.representative == np.flatnonzero(keys == 0)[0]).all()


@pytest.mark.slow
def test_200_000_unlike_rows_in_one_bucket_of_every_band_cost_seconds():
    """What an enemy of the hash could send: all candidates of one another, none alike."""
    rows = 200_000
    hashes = np.zeros((BANDS, rows), np.uint32)
    signatures = np.random.default_rng(2).integers(0, 256, (rows, SLOTS), np.uint8)
    started = time.monotonic()
    found = find_clusters(Sketch(hashes, signatures), np.arange(rows, dtype=np.uint64), THRESHOLD)
    assert time.monotonic() - started < 60
    assert (found.component == np.arange(rows)).all()
    assert (found.representative == np.arange(rows)).all()


def test_a_pair_is_found_though_a_third_unlike_row_with_a_smaller_key_shares_its_buckets():
    rng = random.Random(9)
    text = random_text(rng)
    pair, other = sketch([text, with_words_replaced(text, 1, rng)], THRESHOLD), sketch([random_text(rng)], THRESHOLD)
    signatures = np.concatenate([other.signatures, pair.signatures])
    found = find_clusters(Sketch(np.zeros((BANDS, 3), np.uint32), signatures), np.arange(3, dtype=np.uint64), THRESHOLD)
    assert found.representative.tolist() == found.component.tolist() == [0, 1, 1]


def test_rows_that_match_a_frozen_row_are_found_and_no_others():
    rng = random.Random(11)
    frozen = [random_text(rng) for _ in range(200)]
    training = [with_words_replaced(frozen[number], 1, rng) for number in range(0, 200, 2)]
    training += [random_text(rng) for _ in range(300)]
    keys = np.array([rng.getrandbits(64) for _ in frozen], np.uint64)
    found = find_matches(sketch(frozen, THRESHOLD), keys, sketch(training, THRESHOLD), THRESHOLD)
    assert (found.position[:100] == np.arange(0, 200, 2)).mean() > 0.98
    assert (found.position[100:] == -1).all()
    assert (found.similarity[100:] == 0).all()


def test_a_match_does_not_depend_on_the_order_of_the_frozen_rows_or_on_the_chunk():
    rng = random.Random(12)
    text = random_text(rng)
    frozen = [with_words_replaced(text, count, rng) for count in (0, 1, 0, 2, 1)]
    keys = np.array([3, 1, 2, 5, 4], np.uint64)
    order = [4, 2, 0, 1, 3]
    others = [text, random_text(rng), with_words_replaced(text, 1, rng)]
    straight = find_matches(sketch(frozen, THRESHOLD), keys, sketch(others, THRESHOLD), THRESHOLD)
    shuffled = find_matches(
        sketch([frozen[place] for place in order], THRESHOLD), keys[order], sketch(others[:1], THRESHOLD), THRESHOLD
    )
    assert keys[straight.position[0]] == keys[order][shuffled.position[0]] == 2
    assert straight.similarity[0] == 1
    assert straight.position[1] == -1


def test_of_two_equally_similar_frozen_rows_the_smaller_key_wins_whichever_band_names_it_first():
    signature = np.zeros((1, SLOTS), np.uint8)
    frozen = Sketch(np.array([[0, 7], [7, 0]] + [[8, 9]] * (BANDS - 2), np.uint32), signature.repeat(2, axis=0))
    other = Sketch(np.full((BANDS, 1), 7, np.uint32), signature)
    for keys in ([1, 2], [2, 1]):
        found = find_matches(frozen, np.array(keys, np.uint64), other, THRESHOLD)
        assert found.position.tolist() == [keys.index(1)]


def test_nothing_matches_an_empty_set():
    found = find_matches(sketch([], THRESHOLD), np.zeros(0, np.uint64), sketch(["text"], THRESHOLD), THRESHOLD)
    assert found.position.tolist() == [-1]
