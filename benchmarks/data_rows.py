"""Synthetic but realistic instruction rows in English, Chinese and code, their faults planted and known.

One row in 20 is an exact copy of an earlier one, one in 10 an edited copy (its true similarity is recorded), one in 20
holds personal data. The same seed gives the same bytes. Rows stream: memory does not grow with their number.

    python benchmarks/data_rows.py DIRECTORY --rows 200000
"""

import argparse
import itertools
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import data_words as words

EXACT_SHARE, NEAR_SHARE, PERSONAL_SHARE = 0.05, 0.10, 0.05
LANGUAGES, LANGUAGE_WEIGHTS = ("en", "zh", "code"), (0.45, 0.35, 0.20)
_REMEMBERED = 4_096  # originals that a copy may be made of

Record = dict[str, str]


@dataclass(frozen=True)
class Pair:
    """A planted duplicate.

    Attributes:
        row: line of the copy, from 0.
        of: line of the original, earlier.
        kind: exact, words, insertion, deletion, order, case or politeness.
        language: en, zh or code.
        jaccard: true similarity of the two as sets of character shingles, see `character_shingles`.
        jaccard_words: the same as sets of words and Chinese characters.
    """

    row: int
    of: int
    kind: str
    language: str
    jaccard: float
    jaccard_words: float


@dataclass(frozen=True)
class Personal:
    """A planted piece of personal data, which stands in the row as it is here."""

    row: int
    kind: str
    value: str


@dataclass(frozen=True)
class Planted:
    """Where the rows and the truth about them were written."""

    rows: Path
    pairs: Path
    personal: Path


@dataclass
class _Original:
    row: int
    language: str
    record: Record
    personal: list[tuple[str, str]]


def write_rows(directory: Path, rows: int = 200_000, seed: int = 7) -> Planted:
    """Write rows.jsonl (instruction, input, output), pairs.jsonl and personal.jsonl."""
    directory.mkdir(parents=True, exist_ok=True)
    planted = Planted(*(directory / f"{name}.jsonl" for name in ("rows", "pairs", "personal")))
    with (
        planted.rows.open("w", encoding="utf-8") as row_file,
        planted.pairs.open("w", encoding="utf-8") as pair_file,
        planted.personal.open("w", encoding="utf-8") as personal_file,
    ):
        for record, pair, personal in itertools.islice(generate_rows(seed), rows):
            row_file.write(json.dumps(record, ensure_ascii=False) + "\n")
            if pair:
                pair_file.write(json.dumps(asdict(pair)) + "\n")
            for found in personal:
                personal_file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
    return planted


def generate_rows(seed: int) -> Iterator[tuple[Record, Pair | None, list[Personal]]]:
    """Yield rows without end, each with the earlier one it was copied from, if any, and its personal data."""
    rng = random.Random(seed)
    remembered: list[_Original] = []
    for row in itertools.count():
        draw = rng.random() if len(remembered) > 100 else 1.0
        if draw < EXACT_SHARE + NEAR_SHARE:
            original = rng.choice(remembered)
            record, kind = (original.record, "exact") if draw < EXACT_SHARE else _edited(original, rng)
            texts = text_of(original.record), text_of(record)
            similar = [1.0, 1.0]
            if kind != "exact":
                similar = [_jaccard(*map(shingles, texts)) for shingles in (character_shingles, word_set)]
            values = [Personal(row, kind, value) for kind, value in original.personal if value in texts[1]]
            yield record, Pair(row, original.row, kind, original.language, *similar), values
            continue
        language = rng.choices(LANGUAGES, LANGUAGE_WEIGHTS)[0]
        record, planted = _MAKERS[language](rng), []
        if rng.random() < PERSONAL_SHARE:
            record, planted = _with_personal(record, language, rng)
        yield record, None, [Personal(row, kind, value) for kind, value in planted]
        made = _Original(row, language, record, planted)
        if len(remembered) < _REMEMBERED:
            remembered.append(made)
        else:
            remembered[rng.randrange(_REMEMBERED)] = made


def text_of(record: Record) -> str:
    """Return the text of a row that duplicates are looked for in: its prompt and its answer."""
    return f"{prompt_of(record)}\n{record['output']}"


def prompt_of(record: Record) -> str:
    """Return what is asked, as the product joins it."""
    return f"{record['instruction']}\n\n{record['input']}" if record["input"] else record["instruction"]


def character_shingles(text: str) -> set[str]:
    """Five letters or digits in a row, three from a CJK character on: plain Python, apart from the engine's."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(char for char in folded if char.isalnum() or char in "+-*/%<>=&#@_")
    return {plain[start : start + (3 if char >= "\u2e80" else 5)] for start, char in enumerate(plain)}


def word_set(text: str) -> set[str]:
    """Words by white space, Chinese characters one by one."""
    return set(re.findall(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+", text.lower()))


def _jaccard(left: set[str], right: set[str]) -> float:
    return round(len(left & right) / len(left | right), 4)


def _fill(frames: list[tuple[str, str]], vocabulary: dict[str, list[str]], rng: random.Random) -> str:
    frame, kinds = rng.choice(frames)
    return frame.format(*[_pick(vocabulary[kind], rng) for kind in kinds])


def _pick(items: list[str], rng: random.Random) -> str:
    """Choose one, at a third of the cost of rng.choice."""
    return items[int(rng.random() * len(items))]


def _english(rng: random.Random) -> Record:
    ask = _fill(words.ENGLISH_ASKS, words.ENGLISH, rng)
    sentences = [_sentence(rng) for _ in range(rng.randint(4, 11))]
    context = " ".join(_sentence(rng) for _ in range(3)) if rng.random() < 0.2 else ""
    return {"instruction": ask, "input": context, "output": " ".join(sentences)}


def _sentence(rng: random.Random) -> str:
    sentence = _fill(words.ENGLISH_FRAMES, words.ENGLISH, rng)
    return sentence[0].upper() + sentence[1:]


def _chinese(rng: random.Random) -> Record:
    ask = _fill(words.CHINESE_ASKS, words.CHINESE, rng)
    sentences = [_fill(words.CHINESE_FRAMES, words.CHINESE, rng) for _ in range(rng.randint(4, 14))]
    return {"instruction": ask, "input": "", "output": "".join(sentences)}


def _code(rng: random.Random) -> Record:
    names = rng.sample(words.CODE_NAMES, 3)
    function = f"{rng.choice(words.CODE_VERBS)}_{names[0]}_{rng.choice(words.CODE_NAMES)}"
    ask = rng.choice(words.CODE_ASKS).format(function, *names)
    body = [
        rng.choice(words.CODE_FRAMES).format(*rng.sample(words.CODE_NAMES, 3), rng.randrange(1, 1_000))
        for _ in range(rng.randint(3, 8))
    ]
    code = f"def {function}(self, {names[0]}, {names[1]}):\n{''.join(body)}    return {names[2]}\n"
    return {"instruction": ask, "input": "", "output": code}


_MAKERS: dict[str, Callable[[random.Random], Record]] = {"en": _english, "zh": _chinese, "code": _code}


def _edited(original: _Original, rng: random.Random) -> tuple[Record, str]:
    """Copy a row with some edits of one kind, few or many."""
    kind = rng.choice(list(_EDITS))
    record = dict(original.record)
    record["output"] = _EDITS[kind](record["output"], original.language, rng)
    if rng.random() < 0.3:
        record["instruction"] = _EDITS["words"](record["instruction"], original.language, rng)
    return record, kind


def _tokens(text: str, language: str) -> tuple[list[str], str]:
    return (list(text), "") if language == "zh" else (text.split(" "), " ")


def _count(tokens: list[str], language: str, rng: random.Random) -> int:
    """Return how many tokens to change: from one to a tenth of the words, a twentieth of Chinese characters."""
    return rng.randint(1, max(1, len(tokens) // (20 if language == "zh" else 10)))


def _one_word(language: str, rng: random.Random) -> str:
    source = {"en": words.ENGLISH["n"], "zh": words.CHINESE["n"], "code": words.CODE_NAMES}[language]
    return rng.choice(source)


def _replace_words(text: str, language: str, rng: random.Random) -> str:
    tokens, space = _tokens(text, language)
    for _ in range(_count(tokens, language, rng)):
        word = _one_word(language, rng)
        tokens[rng.randrange(len(tokens))] = word[0] if language == "zh" else word
    return space.join(tokens)


def _insert_words(text: str, language: str, rng: random.Random) -> str:
    tokens, space = _tokens(text, language)
    for _ in range(_count(tokens, language, rng)):
        tokens.insert(rng.randrange(len(tokens)), _one_word(language, rng))
    return space.join(tokens)


def _delete_words(text: str, language: str, rng: random.Random) -> str:
    tokens, space = _tokens(text, language)
    for _ in range(min(_count(tokens, language, rng), len(tokens) - 1)):
        del tokens[rng.randrange(len(tokens))]
    return space.join(tokens)


def _reorder(text: str, language: str, rng: random.Random) -> str:
    mark = {"en": ". ", "zh": "。", "code": "\n"}[language]
    parts = text.split(mark)
    first, second = sorted(rng.choices(range(len(parts)), k=2))
    parts[first], parts[second] = parts[second], parts[first]
    return mark.join(parts)


def _respell(text: str, language: str, rng: random.Random) -> str:
    if language == "zh":
        return text.replace("，", ",").replace("。", rng.choice((". ", "！", "；")))
    if language == "code":
        return text.replace("    ", rng.choice(("\t", "  "))).replace("'", '"')
    return text.replace(".", rng.choice(("!", ";", " ."))).replace(" the ", rng.choice((" The ", " THE ", "  the ")))


def _politeness(text: str, language: str, rng: random.Random) -> str:
    before = {
        "en": ("Sure! ", "Of course, here is the answer: ", "Thank you for your question. "),
        "zh": ("您好！", "好的，回答如下：", "感谢您的提问。"),
        "code": ("# Here is the code you asked for.\n", "#!/usr/bin/env python3\n", "import os\nimport sys\n\n"),
    }
    return rng.choice(before[language]) + text


_EDITS: dict[str, Callable[[str, str, random.Random], str]] = {
    "words": _replace_words,
    "insertion": _insert_words,
    "deletion": _delete_words,
    "order": _reorder,
    "case": _respell,
    "politeness": _politeness,
}


def _with_personal(record: Record, language: str, rng: random.Random) -> tuple[Record, list[tuple[str, str]]]:
    """Add a sentence with one or two pieces of personal data to the prompt or the answer."""
    values = [(kind, _PERSONAL[kind](rng)) for kind in rng.sample(list(_PERSONAL), rng.randint(1, 2))]
    listed = " / ".join(value for _, value in values)
    frames = ("联系方式：{}。", "登记信息为{}，请核对。") if language == "zh" else ("Contact: {}.", "On file: {}.")
    frame = rng.choice(frames)
    key = rng.choice(("instruction", "output"))
    space = "" if language == "zh" else " "
    return record | {key: f"{record[key]}{space}{frame.format(listed)}"}, values


def _digits(count: int, rng: random.Random) -> str:
    return "".join(rng.choices("0123456789", k=count))


def _email(rng: random.Random) -> str:
    first, last = rng.choice(words.FIRST_NAMES).lower(), rng.choice(words.LAST_NAMES).lower()
    return f"{first}.{last}{rng.randrange(100)}@{rng.choice(('example.com', 'mail.example.org', 'corp.example.cn'))}"


def _phone(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"1{rng.choice('3578')}{_digits(9, rng)}"
    return f"+44 20 {rng.randint(2000, 8999)} {_digits(4, rng)}"


def _china_id(rng: random.Random) -> str:
    body = f"{rng.choice(('110105', '310104', '440305', '510107'))}{rng.randint(1950, 2005)}"
    body += f"{rng.randint(1, 12):02}{rng.randint(1, 28):02}{_digits(3, rng)}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11]


def _bank_card(rng: random.Random) -> str:
    body = f"6222{_digits(11, rng)}"
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(body)]
    return body + str(-sum(value - 9 * (value > 9) for value in doubled) % 10)


def _ip_address(rng: random.Random) -> str:
    return ".".join(str(rng.randint(1, 254)) for _ in range(4))


def _mac_address(rng: random.Random) -> str:
    return ":".join(f"{rng.randrange(256):02x}" for _ in range(6))


def _secret(rng: random.Random) -> str:
    return "AKIA" + "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))


def _name_with_age(rng: random.Random) -> str:
    name = rng.choice(words.FAMILY_NAMES) + rng.choice(words.GIVEN_NAMES)
    return f"{name}，{rng.choice('男女')}，{rng.randint(1, 95)}岁"


_PERSONAL: dict[str, Callable[[random.Random], str]] = {
    "email": _email,
    "phone": _phone,
    "china_id": _china_id,
    "bank_card": _bank_card,
    "ip_address": _ip_address,
    "mac_address": _mac_address,
    "secret": _secret,
    "name_with_age": _name_with_age,
}


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    print(write_rows(arguments.directory, arguments.rows, arguments.seed).rows)


if __name__ == "__main__":
    main()
