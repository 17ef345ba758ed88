"""What two token sequences have in common: n-grams, and a longest common subsequence without its table.

The table of the textbook has a cell for every pair of tokens. Here a row of it is one integer: bit i is 0 where the
length grows at token i of the first sequence, and a whole row follows from the one before in three operations (Hyyrö,
Bit-parallel LCS-length computation revisited, 2004).
"""

from collections import Counter
from collections.abc import Sequence


def f1(common: int, first: int, second: int) -> float:
    """Return the harmonic mean of common / first and common / second; 0 if nothing is common."""
    if not common:
        return 0.0
    precision, recall = common / second, common / first
    return 2 * precision * recall / (precision + recall)


def common_ngrams(first: Sequence[str], second: Sequence[str], n: int) -> int:
    """Return how many n-grams stand in both sequences, each counted as often as the rarer side has it."""
    left = Counter(ngrams(first, n))
    common = 0
    for ngram in ngrams(second, n):
        count = left.get(ngram, 0)
        if count:
            left[ngram] = count - 1
            common += 1
    return common


def ngrams(tokens: Sequence[str], n: int) -> Sequence[object]:
    """Return the n-grams of a sequence; of n = 1 the tokens themselves."""
    return tokens if n == 1 else list(zip(*(tokens[start:] for start in range(n)), strict=False))


def subsequence_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of a longest common subsequence."""
    rows = _rows(first, second)
    return len(first) - rows[-1].bit_count() if rows else 0


def subsequence_positions(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Return where in `first` a longest common subsequence stands, last position first.

    Of several it is the one that rouge-score finds, which takes a match wherever it meets one on the way back, and
    shortens `second` where that costs nothing.
    """
    rows = _rows(first, second)
    positions = []
    i, j = len(first) - 1, len(second) - 1
    while i >= 0 and j >= 0:
        if first[i] == second[j]:
            positions.append(i)
            i, j = i - 1, j - 1
        elif rows[j] >> i & 1:
            i -= 1
        else:
            j -= 1
    return positions


def _rows(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Return for each beginning of `second` the row of its table: bit i is 0 where token i of `first` adds one."""
    places: dict[str, int] = {}
    for position, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << position
    all_ones = (1 << len(first)) - 1
    row, rows = all_ones, []
    for token in second:
        matches = row & places.get(token, 0)
        if matches:
            row = (row + matches | row - matches) & all_ones
        rows.append(row)
    return rows
