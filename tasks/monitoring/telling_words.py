"""Which words tell the requests from the training prompts: what a person reads in a drift verdict."""

import math
import re
from collections import Counter

_SHOWN = 8
_WORD = re.compile(r"\b\w{2,24}\b")
_CHARACTER_PAIR = re.compile(r"(?=(\w\w))")
# A word of one or two requests may be a name or a secret; what many hold is a kind of request.
_MIN_REQUESTS = 3


def telling_words(requests: list[str], trained: list[str]) -> tuple[str, ...]:
    """Return the words that speak most for the requests, the strongest first.

    A word's voice is its term of the Kullback-Leibler divergence, p log(p / q): p is the share of the requests that
    hold it, q the share of the training prompts (with half a count added, so that none is zero). Texts in scripts
    without spaces rarely share whole words; for them pairs of characters speak.

    Args:
        requests: distinct requests.
        trained: distinct training prompts.
    """
    return _strongest(_WORD, requests, trained) or _strongest(_CHARACTER_PAIR, requests, trained)


def _strongest(pattern: re.Pattern[str], requests: list[str], trained: list[str]) -> tuple[str, ...]:
    asked, known = _texts_with(pattern, requests), _texts_with(pattern, trained)
    voices: dict[str, float] = {}
    for word, count in asked.items():
        p = (count + 0.5) / (len(requests) + 1)
        q = (known[word] + 0.5) / (len(trained) + 1)
        if count >= _MIN_REQUESTS and p > q:
            voices[word] = p * math.log(p / q)
    return tuple(sorted(voices, key=lambda word: (-voices[word], word))[:_SHOWN])


def _texts_with(pattern: re.Pattern[str], texts: list[str]) -> Counter[str]:
    return Counter(word for text in texts for word in set(pattern.findall(text)))
