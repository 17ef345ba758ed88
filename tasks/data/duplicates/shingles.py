"""Texts as sets of hashed shingles, whole batches at a time.

A shingle is five letters or digits in a row; one that begins with a CJK character is that and the two after it. Before
it is cut, a text is folded: composed (NFC), its case and its full-width forms undone, and white space and the
punctuation of sentences taken out, so that "Hello,  World!" and "hello world" have the same shingles. Signs that carry
meaning in code and sums (+ - * / < = > …) stay.

Each text has five - 1 marks put before it, so that its first letters weigh like the others and a text of any length has
shingles. Hashes depend on nothing but the text: the same on any machine, in any process and in any batch.
"""

import functools
import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHINGLE_CHARS = 5
CJK_SHINGLE_CHARS = 3
MAX_TEXT_CHARS = 1_000_000
"""A longer text is judged by its beginning: one row may not take more memory than some hundred megabytes."""

_MARK = "\uffff"  # a noncharacter: stands in no text, since fold() would take it out
_MARKS = _MARK * (SHINGLE_CHARS - 1)
_FIRST_CJK = 0x2E80  # radicals, kana, ideographs, hangul; above them also the halves of surrogate pairs
_KEPT_SIGNS = frozenset("-*/%&#@\\_")  # punctuation by Unicode, operators by use
_BLOCK_CHARS = 1 << 16  # intermediate arrays stay in the processor's cache
_BLOCK_ROWS = 1 << 10  # however short the texts are

_LEFT = np.uint64(0x9E3779B97F4A7C15)
_RIGHT = np.uint64(0xC2B2AE3D27D4EB4F)
_FINAL = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)
_CJK_BITS = np.uint64((1 << 16 * CJK_SHINGLE_CHARS) - 1)

U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shingles:
    """Shingle hashes of some texts, one after the other.

    Attributes:
        hashes: (shingles,) with repetitions.
        offsets: (texts + 1,); text i has hashes[offsets[i]:offsets[i + 1]], never none.
    """

    hashes: U64
    offsets: I64


def shingle(texts: Sequence[str]) -> Iterator[Shingles]:
    """Hash the shingles of texts, in their order, a block of texts at a time so that memory stays small."""
    block: list[str] = []
    chars = 0
    for text in texts:
        block.append(text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS])
        chars += len(block[-1])
        if chars >= _BLOCK_CHARS or len(block) == _BLOCK_ROWS:
            yield _shingle_block(block)
            block, chars = [], 0
    if block:
        yield _shingle_block(block)


def _shingle_block(texts: list[str]) -> Shingles:
    units, starts = fold(texts)
    hashes = _hash_windows(units)
    for row in np.flatnonzero(np.diff(starts) == len(_MARKS)):  # nothing was left: the text as it is, in one hash
        hashes[starts[row] : starts[row + 1]] = _hash_of_text(texts[row])
    return Shingles(hashes, starts)


def fold(texts: Sequence[str]) -> tuple[U16, I64]:
    """Fold texts to UTF-16 code units, four marks before each text; return them and where each text's marks begin.

    The last entry of the second array is the number of units.
    """
    composed = [text if text.isascii() else unicodedata.normalize("NFC", text) for text in texts]
    encoded = (_MARKS + _MARKS.join(composed)).encode("utf-16-le", "surrogatepass")
    folded = _folding_table().take(np.frombuffer(encoded, "<u2"), mode="clip")
    units = folded.compress(folded != 0)
    marks = np.flatnonzero(units == ord(_MARK))
    if len(marks) != len(_MARKS) * len(texts):  # hostile: a text that holds the mark
        return fold([text.replace(_MARK, "") for text in composed])
    return units, np.append(marks[:: len(_MARKS)], len(units)).astype(np.int64)


@functools.cache
def _folding_table() -> U16:
    """What becomes of each code unit: itself, its folded form, or 0 where it is taken out."""
    table = np.zeros(1 << 16, np.uint16)
    for code in range(1 << 16):
        char = chr(code)
        if 0xD800 <= code < 0xE000:
            table[code] = code
            continue
        plain = unicodedata.normalize("NFKC", char).casefold()
        if unicodedata.category(char)[0] in "LNMS" or plain in _KEPT_SIGNS:
            table[code] = ord(plain) if len(plain) == 1 and plain <= "\uffff" else ord(char.lower()[0])
    table[ord(_MARK)] = ord(_MARK)
    return table


def _hash_windows(units: U16) -> U64:
    """Hash the five units from each place on, three where the first is CJK.

    Windows that begin in a text's marks end in the text; those that begin in the text may end in the next one's marks,
    all of which look alike: no window knows two texts.
    """
    count = len(units)
    padded = np.full(-(-count // 4) * 4 + 8, ord(_MARK), np.uint16)
    padded[:count] = units
    # Four code units are one number of 64 bits; a copy from each of four places makes all numbers aligned.
    length = len(padded) // 4 - 1
    windows = [padded[place : place + length * 4].copy().view(np.uint64) for place in range(4)]
    windows.append(windows[0][1:])
    hashes = np.empty((length - 1) * 4, np.uint64)
    is_cjk = (padded - _FIRST_CJK) < (ord(_MARK) - _FIRST_CJK)
    for place in range(4):
        left, right = windows[place][: length - 1], windows[place + 1][: length - 1]
        mixed = left * _LEFT
        mixed += right * _RIGHT
        cjk = np.flatnonzero(is_cjk[place : (length - 1) * 4 : 4])
        if len(cjk):
            mixed[cjk] = (left[cjk] & _CJK_BITS) * _LEFT
        hashes[place::4] = mixed
    hashes = hashes[:count]
    hashes ^= hashes >> _HALF
    hashes *= _FINAL
    hashes ^= hashes >> _HALF
    return hashes


def _hash_of_text(text: str) -> np.uint64:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
