"""Shingles: what counts as the same text, on any machine and in any batch."""

import random
import time
import unicodedata

import numpy as np
import pytest

from tasks.data.duplicates import shingles as engine
from tasks.data.duplicates.shingles import shingle


def shingle_sets(texts):
    return [
        {int(value) for value in part.hashes[start:end]}
        for part in shingle(texts)
        for start, end in zip(part.offsets, part.offsets[1:], strict=False)
    ]


def plain_shingles(text):
    """The definition in plain Python: fold, put four marks before, cut."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(char for char in folded if char.isalnum() or char in "+-*/%<>=&#@_\\|^~$")
    marked = "\uffff" * 4 + plain + "\uffff" * 4
    return {marked[i : i + (3 if 0x2E80 <= ord(marked[i]) < 0xFFFF else 5)] for i in range(len(plain) + 4)}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello,  World!", "hello world"),
        ("Line one.\nLine two.", "line one line two"),
        ("ＡＢＣ　１２３", "abc 123"),
        ("cafe\u0301 au lait", "caf\u00e9 au lait"),
        ("心肌梗死，怎么办？", "心肌梗死怎么办"),
        ("STRASSE und GRÖSSE", "strasse und größe".replace("ß", "ss")),
        ("nul\x00byte and \u200bzero width", "nulbyte and zero width"),
    ],
)
def test_case_white_space_punctuation_width_and_composition_make_no_difference(text, same):
    left, right = shingle_sets([text, same])
    assert left == right


@pytest.mark.parametrize(
    ("text", "other"),
    [("3 + 4", "3 - 4"), ("a < b", "a > b"), ("x = 1", "x / 1"), ("abc", "abd"), ("心肌", "心肺"), ("???", "!!!")],
)
def test_letters_digits_and_operators_make_a_difference(text, other):
    left, right = shingle_sets([text, other])
    assert left != right


def test_shingles_are_those_of_the_definition():
    rng = random.Random(3)
    alphabet = "abcdeXYZ  .,!?+-=心肌梗死患者，。éß１\n\t한글かな"
    texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(300)]
    texts = [text for text in texts if plain_shingles(text) and "ß" not in text]
    found, expected = shingle_sets(texts), [plain_shingles(text) for text in texts]
    meaning = {}
    for values, pieces in zip(found, expected, strict=True):
        if not any(set(piece) - {"\uffff"} for piece in pieces):
            continue  # nothing left but marks: the text counts as it is
        assert len(values) == len(pieces)
        for piece in pieces:
            meaning.setdefault(piece, values.copy())
            meaning[piece] &= values
    assert len(meaning) > 1_000
    assert all(meaning.values()), "a shingle has another hash in another text"


def test_a_text_has_the_same_shingles_in_any_batch(monkeypatch):
    rng = random.Random(5)
    texts = ["".join(rng.choices("abc 心肌梗😀é.", k=rng.randint(0, 300))) for _ in range(200)]
    together = shingle_sets(texts)
    assert shingle_sets(texts[::-1])[::-1] == together
    assert [shingle_sets([text])[0] for text in texts] == together
    monkeypatch.setattr(engine, "_BLOCK_CHARS", 100)
    assert shingle_sets(texts) == together


def test_hashes_are_the_same_on_any_machine():
    """Signatures are compared across machines and versions: a change here must be meant."""
    parts = list(shingle(["The quick brown fox", "心肌梗死", "", "😀"]))
    assert [part.offsets.tolist() for part in parts] == [[0, 20, 28, 32, 38]]
    assert int(np.bitwise_xor.reduce(parts[0].hashes)) == 14914805014913461565


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "...", "\ufeff", "\uffff\uffff\uffff\uffff", "\udc80", "a", "心", "\u0301"]
)
def test_any_text_has_shingles(text):
    (values,) = shingle_sets([text])
    assert values


def test_memory_is_bounded_however_many_empty_texts_there_are():
    assert [len(part.offsets) - 1 for part in shingle([""] * 2_500)] == [1_024, 1_024, 452]


def test_texts_of_nothing_but_punctuation_are_alike_only_if_equal():
    first, second, third = shingle_sets(["?!", "!?", "?!"])
    assert first == third
    assert not first & second


def test_a_text_cannot_move_its_neighbours_shingles():
    """The mark between texts is a noncharacter, which a hostile text may hold."""
    alone = shingle_sets(["before"])[0], shingle_sets(["after"])[0]
    between = shingle_sets(["before", "\uffff" * 7 + "hostile\uffff", "after"])
    assert (between[0], between[2]) == alone
    assert between[1] == shingle_sets(["hostile"])[0]


def test_a_text_of_ten_million_characters_is_judged_by_its_beginning():
    beginning = "abcdefghij" * 100_000
    started = time.monotonic()
    long, short = shingle_sets([beginning + "x" * 9_000_000, beginning])
    assert long == short
    assert time.monotonic() - started < 10
