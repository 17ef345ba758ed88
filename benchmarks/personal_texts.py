"""Invented texts with and without personal data: the rows of the benchmark, and the labelled file of the tests.

Write the labelled file again with `python benchmarks/personal_texts.py`; a test checks that it is what is made here.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import personal_by_hand
import personal_forms as forms
from personal_values import (
    MAKERS,
    Maker,
    bank_card,
    china_id,
    chinese_mobile,
    email,
    filled,
    hex_key,
    password,
    private_key,
)

LABELLED_FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "personal" / "labelled.jsonl"
SEED = 20_261
PER_KIND = 26
_MARK = re.compile(r"\[\[([a-z_]+)\|(.+?)\]\](?!\])")
_FORMS = {"en": forms.ENGLISH, "zh": forms.CHINESE}
_PROSE = {"en": forms.ENGLISH_PROSE, "zh": forms.CHINESE_PROSE}
_NOTHING = {"en": forms.ENGLISH_NOTHING, "zh": forms.CHINESE_NOTHING}
Record = dict[str, Any]


def labelled(seed: int = SEED) -> Iterator[Record]:
    """Yield texts with their personal data: {text, language, spans: [[kind, start, end], ...]}."""
    rng = random.Random(seed)
    for (language, kind), makers in sorted(MAKERS.items()):
        for number in range(PER_KIND):
            own = _lines(_FORMS[language][kind])
            yield _record(language, own[number % len(own)], kind, rng.choice(makers)(rng))
    for language, form, maker in 2 * _assignments():
        yield _record(language, form, "secret", maker(rng))
    for number in range(20):
        yield _in_full_width(rng, number)
    for language, texts in _NOTHING.items():
        for form in 4 * _lines(texts):
            yield {"text": filled(form, rng), "language": language, "spans": []}
    for number in range(40):
        yield _several(rng, ("en", "zh")[number % 2])
    for language, texts in (("en", personal_by_hand.ENGLISH), ("zh", personal_by_hand.CHINESE)):
        yield from (_by_hand(language, text) for text in texts.strip().splitlines())


def mixed_rows(count: int, seed: int = SEED, personal_share: float = 0.05) -> list[str]:
    """Return texts of about 500 characters, half English, half Chinese; a share holds one to three values."""
    rng = random.Random(seed)
    return [_row(rng, ("en", "zh")[number % 2], personal_share) for number in range(count)]


def _row(rng: random.Random, language: str, personal_share: float) -> str:
    pieces: list[str] = []
    wanted = rng.randint(300, 700)
    prose = _lines(_PROSE[language])
    while sum(map(len, pieces)) < wanted:
        pieces.append(rng.choice(prose))
    if rng.random() < personal_share:
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice(sorted(_FORMS[language]))
            value = rng.choice(MAKERS[language, kind])(rng)
            pieces.insert(rng.randrange(len(pieces)), rng.choice(_lines(_FORMS[language][kind])).format(value))
    return "\n".join(pieces)


def _lines(block: str) -> list[str]:
    return [line.replace("\\n", "\n") for line in block.strip().splitlines()]


def _assignments() -> list[tuple[str, str, Maker]]:
    return [
        *(("en", form, password) for form in _lines(forms.ENGLISH_PASSWORDS)),
        *(("zh", form, password) for form in _lines(forms.CHINESE_PASSWORDS)),
        *(("en", form, hex_key) for form in _lines(forms.ENGLISH_KEYS)),
        *((language, form, private_key) for language, form in zip(("en", "zh"), _lines(forms.KEYS), strict=True)),
    ]


def _in_full_width(rng: random.Random, number: int) -> Record:
    """Return a Chinese text whose value is written in full-width characters, which hide nothing."""
    kinds = (("phone", chinese_mobile), ("china_id", china_id), ("email", email), ("bank_card", bank_card))
    kind, maker = kinds[number % len(kinds)]
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in maker(rng))
    return _record("zh", rng.choice(_lines(forms.CHINESE[kind])[:3]), kind, wide)


def _record(language: str, form: str, kind: str, value: str) -> Record:
    start = form.format("\0").index("\0")
    return {"text": form.format(value), "language": language, "spans": [[kind, start, start + len(value)]]}


def _by_hand(language: str, marked: str) -> Record:
    """Read a text whose personal data is marked [[kind|value]]."""
    text, spans, position = "", [], 0
    for match in _MARK.finditer(marked):
        text += marked[position : match.start()]
        spans.append([match[1], len(text), len(text) + len(match[2])])
        text += match[2]
        position = match.end()
    return {"text": text + marked[position:], "language": language, "spans": spans}


def _several(rng: random.Random, language: str) -> Record:
    """Return a longer text with several kinds between ordinary sentences."""
    prose = _lines(_PROSE[language])
    text, spans = rng.choice(prose), []
    for kind in rng.sample(sorted(_FORMS[language]), 3):
        form = rng.choice(_lines(_FORMS[language][kind]))
        record = _record(language, form, kind, rng.choice(MAKERS[language, kind])(rng))
        text += "\n"
        spans.append([kind, *(len(text) + offset for offset in record["spans"][0][1:])])
        text += record["text"] + "\n" + rng.choice(prose)
    return {"text": text, "language": language, "spans": spans}


def write_labelled() -> int:
    """Write the labelled file and return its number of texts."""
    records = list(labelled())
    LABELLED_FILE.parent.mkdir(parents=True, exist_ok=True)
    LABELLED_FILE.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return len(records)


if __name__ == "__main__":
    print(f"{write_labelled()} texts in {LABELLED_FILE}")
