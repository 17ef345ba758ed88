import itertools
import unicodedata

import pytest

from tasks.contracts.cleaning_config import UnicodeStep, WhitespaceStep
from tasks.data.cleaning.text import _COMMON_SIGNS, _LIGATURES, _UNWANTED, MAX_MARKS, Unicode

REPAIR = UnicodeStep()

GOOD = [
    "患者男，58岁，主诉“胸痛3小时”，诊断：急性心肌梗死（STEMI）。肌钙蛋白I 2.3 ng/mL；血压130/80 mmHg……",
    "病灶大小约3×5cm，体温38.5℃，血氧≥95%，剂量0.5μg/kg·min——遵医嘱。",
    "青霉素过敏者禁用！①头孢类②大环内酯类；每日２次，每次１片。",
    "def f(x: list[int]) -> str:\n\treturn f'{x!r}\\n' if x and x[0] << 2 >= 0xFF else \"—\"",
    'for (int i = 0; i < n && !done; ++i) { printf("%d\\n", a[i] & 0x0f); }',
    "re.compile(r'[À-ÖØ-öø-ÿ]+')",
    "naïve café, Ångström, Zürich, São Paulo, l’été, œuvre, «déjà vu»",
    "Привет, мир! Здравствуйте.",
    "Καλημέρα κόσμε",
    "नमस्ते दुनिया, क्षत्रिय; বাংলা ভাষা; தமிழ் மொழி",
    "مرحبا بالعالم — لا إله",
    "👨‍👩‍👧‍👦 👍🏽 🏴󠁧󠁢󠁷󠁬󠁳󠁿 ✔️",
    "こんにちは、ｶﾀｶﾅとﾃｽﾄ。",
    "안녕하세요",
    "50 % ± 2 ° – “quoted” … ™ ® • ²",
    "price: £5 or €6 (¥700)",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_text_of_any_script_comes_back_as_the_same_object(text, cleaned_text):
    assert unicodedata.is_normalized("NFC", text)
    assert cleaned_text(text, REPAIR) is text


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("Itâ€™s a â€œtestâ€\x9d", "It’s a “test”"),
        ("schÃ¶n und groÃŸ", "schön und groß"),
        ("The Mona Lisa doesnÃ¢â‚¬â„¢t have eyebrows.", "The Mona Lisa doesn’t have eyebrows."),
        ("å¿ƒè‚Œæ¢—æ­», see a doctor", "心肌梗死, see a doctor"),
        ("first line\nnaÃ¯ve\n心肌梗死", "first line\nnaïve\n心肌梗死"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
        ("×©×œ×•×\x9d", "שלום"),
    ],
)
def test_text_that_was_decoded_wrongly_is_repaired_line_by_line(broken, mended, cleaned_text):
    assert cleaned_text(broken, REPAIR) == mended


def test_without_repair_characters_are_only_composed(cleaned_text):
    only_compose = UnicodeStep(repair=False)
    assert cleaned_text("schÃ¶n ﬁ\x07", only_compose) == "schÃ¶n ﬁ\x07"
    assert cleaned_text("cafe\u0301", only_compose) == "café"


def test_ligatures_are_taken_apart_and_invisible_characters_go(cleaned_text):
    assert cleaned_text("eﬃcient ﬁle", REPAIR) == "efficient file"
    assert cleaned_text("\ufeffone\x00 two\x1b[31m red\x1b[0m\x7f 三", REPAIR) == "one two red 三"
    assert cleaned_text("a\x08b\tc\n", REPAIR) == "ab\tc\n"


def test_wide_letters_and_digits_become_narrow_only_when_wanted(cleaned_text):
    text = "ＡＢ１，血压１３０：（高）！"
    assert cleaned_text(text, REPAIR) is text
    assert cleaned_text(text, UnicodeStep(width=True)) == "AB1，血压130：（高）！"


def test_mojibake_that_hides_half_a_surrogate_pair_leaves_text_that_a_file_accepts(cleaned_text):
    cleaned = cleaned_text("Ã©tÃ© í\xa0\xbd í\xb8\x80 í\xa0\xbd", REPAIR)
    assert cleaned.encode().decode() == cleaned


@pytest.mark.slow
def test_signs_that_are_common_in_good_text_need_no_look_by_ftfy():
    """The check that comes before ftfy's own leaves these signs out; ftfy must not change any text of them.

    But for × and ·, of which ftfy makes letters that good text does not mean (×“ a Hebrew one).
    """
    from ftfy import fix_encoding

    signs = _COMMON_SIGNS.replace("×", "").replace("·", "") + "aZ1 心"
    for length in (2, 3):
        for combination in itertools.product(signs, repeat=length):
            text = "".join(combination)
            assert fix_encoding(text) == text, text


def test_a_flood_of_combining_marks_is_cut(cleaned_text):
    flood = "e" + "\u0301\u0316" * 5_000 + " end"
    cleaned = cleaned_text(flood, REPAIR)
    assert cleaned.endswith(" end") and len(cleaned) <= MAX_MARKS + 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    ["é", "\u0316\u0301", "Ã¢â‚¬â„¢", "â", "Ã", "\x1b[", "心\u0301", "©×", "Œ", "в", "𝒜\u0301"],
)
def test_hostile_text_takes_linear_time(piece, cleaned_text, assert_linear):
    assert_linear(lambda text: cleaned_text(text, REPAIR), lambda size: piece * size, 20_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\r\ntwo\rthree  \n\t ", "one\ntwo\nthree"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("a\n \n\t\n  \n\n    b", "a\n\n\n    b"),
        ("心肌梗死。\u3000\n", "心肌梗死。"),
        ("  indented stays", "  indented stays"),
        (" \n ", ""),
    ],
)
def test_white_space_becomes_plain(text, expected, cleaned_text):
    assert cleaned_text(text, WhitespaceStep()) == expected


def test_two_empty_lines_and_spaces_inside_stay(cleaned_text):
    text = "a  b\tc  \n\n\nd"
    assert cleaned_text(text, WhitespaceStep()) is text
    assert cleaned_text(text, WhitespaceStep(collapse_spaces=True)) == "a b c \n\n\nd"
    assert cleaned_text(text, WhitespaceStep(max_empty_lines=0)) == "a  b\tc  \nd"


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["\n", "\n ", " ", "\r", "\t\n", "\nx "])
def test_hostile_white_space_takes_linear_time(piece, cleaned_text, assert_linear):
    step = WhitespaceStep(collapse_spaces=True)
    assert_linear(lambda text: cleaned_text(text, step), lambda size: "x" + piece * size + "x", 100_000)


MORE_GOOD = [
    "Größe 5 µm ± 2",
    "señor año",
    "—",
    "…",
    "“",
    "it’s",
    "€5",
    "שלום עולם",
    "Łódź źle",
    "žluťoučký kůň",
    "İ şiir",
]


def test_the_quick_look_before_ftfy_misses_no_mojibake():
    """Every text, decoded wrongly in each way that ftfy knows, comes out as ftfy alone repairs it."""
    from ftfy import fix_encoding
    from ftfy.chardata import CHARMAP_ENCODINGS

    step = Unicode(REPAIR)
    compared = 0
    for text in [*GOOD, *" ".join(GOOD).split(), *MORE_GOOD]:
        for encoding in CHARMAP_ENCODINGS:
            try:
                broken = text.encode().decode(encoding)
            except UnicodeDecodeError:
                continue
            alone = _UNWANTED.sub("", fix_encoding(broken)).translate(_LIGATURES)
            assert step._clean_text(broken) == unicodedata.normalize("NFC", alone), (broken, encoding)
            compared += 1
    assert compared > 1_000
