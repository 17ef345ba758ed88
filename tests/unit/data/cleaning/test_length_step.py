import random

import pytest
from tiny_model import make_tiny_tokenizer

from tasks.contracts.cleaning_config import LengthStep
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning.length import Length
from tasks.data.cleaning.step import Dropped
from tasks.data.cleaning.token_counter import TokenCounter

ALPHABETS = [
    "abc def .\n",
    "心肌梗死，。",
    "é\u0301ñ",
    "a<|im_start|> <|im_end|>",
    "👍🏽\u200d",
    "क्षि ",
    " \t",
    "\u0958\u0344",
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Tokenizer files of several kinds by name."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = tmp_path_factory.mktemp("tokenizers")
    make_tiny_tokenizer().save_pretrained(folder)
    paths = {"byte-level": folder / "tokenizer.json"}

    def save(name, change):
        tokenizer = Tokenizer.from_file(str(paths["byte-level"]))
        change(tokenizer)
        paths[name] = folder / f"{name}.json"
        tokenizer.save(str(paths[name]))

    def with_nfc(tokenizer):
        tokenizer.normalizer = normalizers.NFC()

    def with_prefix_space(tokenizer):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
        )

    def with_truncation(tokenizer):
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=9)

    save("nfc", with_nfc)
    save("prefix-space", with_prefix_space)
    save("truncating", with_truncation)
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    paths["words"] = folder / "words.json"
    words.save(str(paths["words"]))
    return paths


@pytest.mark.parametrize("kind", ["byte-level", "nfc", "prefix-space", "truncating", "words"])
def test_the_bounds_of_any_text_hold(kind, tokenizers):
    counter = TokenCounter(tokenizers[kind])
    choose = random.Random(3)
    texts = ["", "a", " ", "  \n", "<|im_start|>", "x" * 5_000, "心" * 999]
    texts += ["".join(choose.choices(choose.choice(ALPHABETS), k=choose.randint(1, 60))) for _ in range(400)]
    for text, count in zip(texts, counter.counts(texts), strict=True):
        fewest, most = counter.bounds(text)
        assert fewest <= count <= most, (text, fewest, count, most)


def test_bounds_of_a_byte_level_tokenizer_decide_without_encoding(tokenizers):
    fewest, most = TokenCounter(tokenizers["byte-level"]).bounds("心肌梗死" * 10)
    assert 2 <= fewest < most == 120
    assert TokenCounter(tokenizers["words"]).bounds("some words") == (0, float("inf"))


@pytest.mark.parametrize("kind", ["byte-level", "nfc", "words"])
@pytest.mark.parametrize("limits", [(3, 20, 0), (0, 0, 14), (2, 0, 0), (5, 12, 25)])
def test_rows_are_dropped_exactly_by_the_number_of_their_tokens(kind, limits, tokenizers, row_of):
    least, most, most_of_row = limits
    section = LengthStep(min_answer_tokens=least, max_answer_tokens=most, max_row_tokens=most_of_row)
    step, counter = Length(section, tokenizers[kind]), TokenCounter(tokenizers[kind])
    choose = random.Random(7)

    def text():
        return "".join(choose.choices("ab c 心 肌é\n", k=choose.randint(0, 40)))

    rows = [
        row_of(text(), question="a " + text(), rejected=text() if number % 3 == 0 else None) for number in range(300)
    ]
    expected = []
    for row in rows:
        question, answer = counter.counts([message["content"] for message in row["messages"]])
        answers = [answer, *(counter.counts([row["rejected"]]) if "rejected" in row else [])]
        if min(answers) < least:
            expected.append("answer too short")
        elif most and max(answers) > most:
            expected.append("answer too long")
        elif most_of_row and question + max(answers) > most_of_row:
            expected.append("row too long")
        else:
            expected.append("kept")
    results = step.clean(rows)
    assert [result.reason if isinstance(result, Dropped) else "kept" for result in results] == expected
    assert len(set(expected)) > 1
    assert all(result is row for result, row in zip(results, rows, strict=True) if not isinstance(result, Dropped))
    assert [step.clean([row])[0] for row in rows] == results


def test_a_huge_text_is_decided_without_being_encoded(tokenizers, row_of, monkeypatch):
    step = Length(LengthStep(max_row_tokens=512), tokenizers["byte-level"])
    monkeypatch.setattr(TokenCounter, "counts", lambda *_: pytest.fail("encoded"))
    [result] = step.clean([row_of("心" * 3_000_000)])
    assert result == Dropped("row too long", "more than 512 tokens (max_row_tokens)")


def test_without_a_tokenizer_the_step_says_what_it_needs(tmp_path):
    with pytest.raises(ConfigError, match="tokenizer"):
        Length(LengthStep(), None)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Length(LengthStep(), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Length(LengthStep(), tmp_path)
