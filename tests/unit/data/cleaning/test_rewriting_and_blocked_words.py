import random

import pytest

from tasks.contracts.cleaning_config import BlockedStep, ReplaceStep, TermsStep
from tasks.contracts.config import validate_config
from tasks.contracts.errors import ConfigError
from tasks.data.cleaning import word_search
from tasks.data.cleaning.blocked import Blocked
from tasks.data.cleaning.rewrite import Replace, Terms
from tasks.data.cleaning.step import Dropped
from tasks.data.cleaning.word_search import WordSearch


@pytest.mark.parametrize(
    ("pattern", "replacement", "text", "expected"),
    [
        (r"(\d+)\s*毫克", r"\1 mg", "每次5毫克，每日10 毫克", "每次5 mg，每日10 mg"),
        (r"(?P<a>foo)-(?P<b>bar)", r"\g<b>\n\g<a>", "x foo-bar", "x bar\nfoo"),
        (r"(?i)regards,[^\n]*$", "", "Text. Regards, Bob", "Text. "),
        (r"(?m)^> .*\n", "", "> quoted\nanswer\n> q2\n", "answer\n"),
        (r"x*", "-", "axxb", "a-b"),
        (r"\s+$", "", "心肌梗死  ", "心肌梗死"),
    ],
)
def test_matches_are_replaced(pattern, replacement, text, expected, cleaned_text):
    assert cleaned_text(text, ReplaceStep(name="rule", pattern=pattern, replacement=replacement)) == expected


def test_a_text_without_a_match_is_the_same_object(cleaned_text):
    text = "nothing here"
    assert cleaned_text(text, ReplaceStep(name="rule", pattern="[0-9]", replacement="#")) is text


def test_rows_that_match_are_dropped_wherever_the_match_stands(row_of):
    step = Replace(ReplaceStep(name="adverts", pattern="加微信|(?i)buy now", drop=True))
    rows = [row_of("好的"), row_of("请加微信"), row_of("x", question="BUY NOW"), row_of("a", rejected="buy now")]
    kept, *dropped = step.clean(rows)
    assert kept is rows[0]
    assert dropped == [Dropped("matched a pattern", "adverts")] * 3


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "[z-a]", "a**"])
def test_a_pattern_that_re2_does_not_take_is_named(pattern):
    with pytest.raises(ConfigError) as caught:
        Replace(ReplaceStep(name="bad rule", pattern=pattern))
    assert "bad rule" in str(caught.value) and repr(pattern) in str(caught.value)


@pytest.mark.parametrize("replacement", [r"\2", r"\g<name>", "\\u12", "\\ud800"])
def test_a_replacement_that_cannot_be_filled_in_is_named(replacement):
    with pytest.raises(ConfigError, match="bad rule"):
        Replace(ReplaceStep(name="bad rule", pattern="(a)", replacement=replacement))


@pytest.mark.parametrize("written", [r"\0", r"x\000y", r"\x00", "\\ud83d"])
def test_a_replacement_that_writes_what_no_row_may_hold_is_refused(written):
    """In a replacement a backslash and 0 is the character NUL, as in Python; all that matches is \\g<0>."""
    with pytest.raises(ConfigError, match="the replace step 'bad rule' has the replacement"):
        Replace(ReplaceStep(name="bad rule", pattern="(a)", replacement=written))


def test_all_that_matches_can_be_put_in_again(cleaned_text):
    step = ReplaceStep(name="rule", pattern="b+", replacement=r"[\g<0>]")
    assert cleaned_text("abba", step) == "a[bb]a"


@pytest.mark.parametrize(("flawed", "flaw"), [("a\0b", "NUL"), ("a\ud83d", "(surrogate pair|as a unicode string)")])
@pytest.mark.parametrize(
    "step",
    [
        {"step": "replace", "name": "rule", "pattern": "a", "replacement": ...},
        {"step": "replace", "name": ..., "pattern": "a"},
        {"step": "replace", "name": "rule", "pattern": ...},
        {"step": "terms", "terms": {"a": ...}},
        {"step": "terms", "terms": {...: "a"}},
        {"step": "blocked", "words": ["a", ...]},
    ],
)
def test_settings_hold_nothing_that_no_row_may_hold(step, flawed, flaw):
    def filled(value):
        if isinstance(value, dict):
            return {filled(key): filled(each) for key, each in value.items()}
        return [filled(each) for each in value] if isinstance(value, list) else flawed if value is ... else value

    with pytest.raises(ConfigError, match=rf"data\.cleaning.*{flaw}"):
        validate_config({"data": {"cleaning": [filled(step)]}})


def test_the_slice_of_a_source_holds_nothing_that_no_row_may_hold():
    with pytest.raises(ConfigError, match=r"data\.sources.*slice.*NUL"):
        validate_config({"data": {"sources": [{"kind": "files", "path": "a.jsonl", "slice": "a\0"}]}})


@pytest.mark.parametrize(("pattern", "piece"), [("(a+)+$", "a"), ("(a|aa)*b", "a"), (".*.*=.*", "x"), ("心*肌", "心")])
def test_hostile_text_costs_a_pattern_linear_time(pattern, piece, cleaned_text, assert_linear):
    step = ReplaceStep(name="rule", pattern=pattern, replacement="y")
    assert_linear(lambda text: cleaned_text(text, step), lambda size: piece * size + "!", 50_000)


def test_the_longest_term_wins_and_what_was_put_in_is_not_looked_at_again(cleaned_text):
    terms = {"心肌梗塞": "心肌梗死", "急性心肌梗塞": "AMI", "AMI": "急性心肌梗塞", "心肌": "X"}
    assert cleaned_text("急性心肌梗塞、心肌梗塞、心肌、AMI", TermsStep(terms=terms)) == "AMI、心肌梗死、X、急性心肌梗塞"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MI and MIDDLE and EMI, MI.", "infarction and MIDDLE and EMI, infarction."),
        ("患MI后", "患infarction后"),
        ("MI2 éMI", "MI2 éMI"),
        ("heart attacks and heart attack", "heart attacks and infarction"),
    ],
)
def test_terms_of_scripts_that_divide_words_are_whole_words(text, expected, cleaned_text):
    terms = {"MI": "infarction", "heart attack": "infarction"}
    assert cleaned_text(text, TermsStep(terms=terms)) == expected


def test_where_the_longest_term_is_no_whole_word_a_shorter_one_counts(cleaned_text):
    step = TermsStep(terms={"heart attack": "MI", "heart": "cor"})
    assert cleaned_text("heart attacks", step) == "cor attacks"


def test_terms_take_case_as_it_is_unless_told_otherwise(cleaned_text):
    terms = {"Covid": "COVID-19"}
    assert cleaned_text("Covid COVID covid", TermsStep(terms=terms)) == "COVID-19 COVID covid"
    text = "İİ Covid İ COVID covid ΟΔΟΣ"
    assert cleaned_text(text, TermsStep(terms=terms, ignore_case=True)) == "İİ COVID-19 İ COVID-19 COVID-19 ΟΔΟΣ"
    assert cleaned_text("ΟΔΟΣ οδοσ", TermsStep(terms={"οδος": "street"}, ignore_case=True)) == "street street"


def test_terms_come_from_a_file_too_and_those_of_the_config_win(tmp_path, cleaned_text):
    path = tmp_path / "terms.tsv"
    path.write_bytes("\ufeffone\ttwo\r\n\r\n心梗\t心肌梗死\r\n".encode())
    assert cleaned_text("one 心梗", TermsStep(path=str(path))) == "two 心肌梗死"
    assert cleaned_text("one 心梗", TermsStep(path=str(path), terms={"one": "1"})) == "1 心肌梗死"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"only one column\n", "line 1"),
        (b"a\tb\na\tc\n", "twice"),
        (b"\tb\n", "line 1"),
        (b"\xff\xfe", "UTF-8"),
        (b"a\tb\nc\td\0\n", "line 2 holds a NUL"),
        (b"\n", "no terms"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_terms_that_is_none_is_named(content, complaint, tmp_path):
    path = tmp_path / "terms.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        Terms(TermsStep(path=str(path)))
    assert str(path) in str(caught.value)


def test_rows_with_a_blocked_word_are_dropped(row_of, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("赌博\n\nbad word\n", encoding="utf-8")
    step = Blocked(BlockedStep(words=("Scam",), path=str(path)))
    rows = [row_of("网络赌博网站"), row_of("a SCAM!"), row_of("scams"), row_of("ok", question="BAD WORD"), row_of("好")]
    found = [result.detail if isinstance(result, Dropped) else result for result in step.clean(rows)]
    assert found == ["赌博", "Scam", rows[2], "bad word", rows[4]]
    assert found[2] is rows[2]


def test_blocked_words_anywhere_in_a_word_on_request(row_of):
    step = Blocked(BlockedStep(words=("scam",), whole_words=False))
    [result] = step.clean([row_of("scammers")])
    assert result == Dropped("blocked word", "scam")


def test_a_file_without_blocked_words_is_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n \n")
    with pytest.raises(ConfigError, match="no words"):
        Blocked(BlockedStep(path=str(path)))


@pytest.mark.parametrize("whole_words", [True, False])
def test_a_long_text_is_searched_in_pieces_with_the_same_result(whole_words, monkeypatch):
    random_text = random.Random(5)
    search = WordSearch(["ab", "abc", "c", "ca b", "心肌", "心肌梗"], whole_words, ignore_case=True)
    text = "".join(random_text.choice(["a", "b", "C", " ", "心", "肌", "梗", "AB"]) for _ in range(3_000))
    whole = list(search.find(text))
    assert len(whole) > 100
    for size in (1, 7, 100):
        monkeypatch.setattr(word_search, "_WINDOW_CHARS", size)
        assert list(search.find(text)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["a", "ab ", "心", "İ"])
def test_hostile_text_costs_word_search_linear_time(piece, assert_linear):
    search = WordSearch(["a" * length for length in range(1, 6)] + ["心心心", "i"], True, ignore_case=True)
    assert_linear(lambda text: sum(1 for _ in search.find(text)), lambda size: piece * size, 20_000)
