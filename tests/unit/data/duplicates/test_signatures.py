"""Signatures: how near the estimate is to the truth, and that files hold what memory held."""

import random

import numpy as np
import pytest

from tasks.data.duplicates.shingles import Shingles, shingle
from tasks.data.duplicates.signatures import (
    SLOTS,
    Sketch,
    SketchFiles,
    _low_bits,
    _slots,
    accepted_from,
    similarity,
    sketch,
    sketch_conversations,
    slots_per_band,
)


def random_text(rng, words=60):
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(words))


def edited(text, share, rng):
    words = text.split()
    for place in rng.sample(range(len(words)), int(len(words) * share)):
        words[place] = random_text(rng, 1)
    return " ".join(words)


def true_similarity(left, right):
    sets = [
        {f"{'^' * 4}{text.replace(' ', '')}$$$$"[start : start + 5] for start in range(len(text.replace(" ", "")) + 4)}
        for text in (left, right)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_the_estimate_is_near_the_true_similarity():
    rng = random.Random(1)
    left = [random_text(rng) for _ in range(400)]
    right = [edited(text, rng.random() * 0.5, rng) for text in left]
    sketches = sketch(left + right, 0.8)
    estimates = similarity(sketches.signatures[:400], sketches.signatures[400:])
    errors = estimates - np.array([true_similarity(*pair) for pair in zip(left, right, strict=True)])
    assert abs(errors.mean()) < 0.01
    assert np.sqrt((errors**2).mean()) < 0.05


def test_unrelated_texts_are_estimated_near_nought_and_equal_texts_at_one():
    rng = random.Random(2)
    sketches = sketch([random_text(rng) for _ in range(200)], 0.8).signatures
    assert similarity(sketches[:100], sketches[100:]).mean() < 0.02
    assert (similarity(sketches, sketches) == 1).all()


def test_slots_that_agree_by_chance_are_taken_off():
    left, right = np.zeros((2, SLOTS), np.uint8), np.ones((2, SLOTS), np.uint8)
    right[1, :64] = 0
    assert similarity(left, right).tolist() == pytest.approx([0, (64 / SLOTS - 1 / 256) / (1 - 1 / 256)])


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_pairs_at_the_threshold_agree_in_a_band_99_times_in_100(threshold):
    slots = slots_per_band(threshold)
    assert 1 - (1 - threshold**slots) ** (SLOTS // slots) >= 0.99
    assert sketch(["some text"], threshold).bands == SLOTS // slots


def test_a_higher_threshold_has_fewer_candidates():
    assert slots_per_band(0.5) < slots_per_band(0.8) < slots_per_band(0.95)


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_a_threshold_that_is_no_similarity_is_refused(threshold):
    with pytest.raises(ValueError, match="Jaccard similarity"):
        slots_per_band(threshold)


def test_a_pair_counts_from_a_standard_error_below_the_threshold():
    assert 0.755 < accepted_from(0.8) < 0.765
    assert accepted_from(1.0) == 1.0


def test_signatures_are_the_same_on_any_machine():
    """They are compared across machines and versions of the library: a change here must be meant."""
    found = sketch(["The quick brown fox jumps over the lazy dog", "心肌梗死患者应当立即就医"], 0.8)
    assert found.signatures[:, :6].tolist() == [[207, 168, 147, 42, 224, 173], [224, 93, 5, 121, 52, 102]]
    assert found.band_hashes[:2].tolist() == [[2751808514, 930894232], [843066238, 4060604806]]


def test_a_text_has_the_same_signature_in_any_batch():
    rng = random.Random(4)
    texts = [random_text(rng, rng.randint(1, 300)) for _ in range(300)]
    together = sketch(texts, 0.8)
    apart = [sketch([text], 0.8) for text in texts]
    assert (together.signatures == np.concatenate([one.signatures for one in apart])).all()
    assert (together.band_hashes == np.concatenate([one.band_hashes for one in apart], axis=1)).all()


def test_no_texts_have_an_empty_sketch():
    empty = sketch([], 0.8)
    assert (empty.rows, empty.band(0).shape) == (0, (0,))


def test_files_hold_what_memory_held(tmp_path):
    rng = random.Random(6)
    whole = sketch([random_text(rng, 20) for _ in range(100)], 0.8)
    cuts = [0, 30, 30, 77, 100]  # one chunk is empty
    stems = [tmp_path / f"chunk-{number}" for number in range(4)]
    for stem, start, end in zip(stems, cuts, cuts[1:], strict=False):
        Sketch(whole.band_hashes[:, start:end], whole.signatures[start:end]).write(stem)
    files = SketchFiles(stems, 0.8)
    positions = np.array([99, 0, 29, 30, 76, 77, 0, 50])
    assert (files.rows, files.bands) == (whole.rows, whole.bands)
    assert all((files.band(number) == whole.band(number)).all() for number in range(whole.bands))
    assert (files.signatures_of(positions) == whole.signatures_of(positions)).all()


@pytest.mark.parametrize("other", [0.5, 0.9])
def test_files_of_another_threshold_are_refused(tmp_path, other):
    sketch(["a text", "another"], 0.8).write(tmp_path / "chunk")
    with pytest.raises(ValueError, match=f"not of threshold {other}"):
        SketchFiles([tmp_path / "chunk"], other)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    sketch(["a text", "another"], 0.8).write(tmp_path / "chunk")
    with (tmp_path / "chunk.bands").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="100 bytes, expected"):
        SketchFiles([tmp_path / "chunk"], 0.8)


def test_the_sketch_of_a_conversation_is_that_of_both_texts_as_one_set():
    """It rests on rensa's slots being minima, which a new version of it could change."""
    prompts = ["What is a river?", "x" * 400 + " one two three", "短问题", ""]
    answers = ["A stream of water that flows to the sea.", "y" * 700, "一条很长的回答，讲的是河流与大海。", "only"]
    asked, whole, answered = sketch_conversations(prompts, answers, 0.8)
    hashes = [np.concatenate([part.hashes for part in shingle([text])]) for text in (*prompts, *answers)]
    unions = [np.concatenate(pair) for pair in zip(hashes[:4], hashes[4:], strict=True)]
    joined = Shingles(np.concatenate(unions), np.cumsum([0, *map(len, unions)]))
    assert np.array_equal(whole.signatures, _low_bits(_slots(joined)))
    assert np.array_equal(asked.signatures, sketch(prompts, 0.8).signatures)
    assert np.array_equal(asked.band_hashes, sketch(prompts, 0.8).band_hashes)
    assert np.array_equal(answered, sketch(answers, 0.8).signatures)
