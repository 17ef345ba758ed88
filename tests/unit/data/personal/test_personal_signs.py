"""The gate lets through whatever a rule would find, whichever spaces and groups it is written in."""

import random

import pytest

from tasks.data.personal.folding import folded
from tasks.data.personal.scanner import PersonalScanner

KINDS = ("email", "phone", "china_id", "bank_card", "ip_address", "mac_address", "secret", "name_with_age")
SCANNER = PersonalScanner(KINDS, {})
EVERYTHING = [sign for sign, _ in SCANNER._rules]
SPACES = "\u00a0\u2003\u2005\u2009\u202f\u3000"
LETTERS = "abcdefghijklmnopqrstuvwxyz" * 3
PIECES = (
    *("姓名", "：", "姓 名: ", "李小明", "张伟", "欧阳小明", "患者", " "),
    *(" ", " ", "性 别", "年 龄：45", "不详", "，", "男", "45岁"),
    *("Name: ", "Patient name:", "John Smith", "Mary-Ann O'Brien", "Mr. Singh"),
    *(", ", " | ", "Age", "sex ", "DOB", "aged"),
    *("five-year-old", "forty years of age", " a 45 year old", " y/o", "pyo"),
    *("45", "M", " female", "'s ", "7", "is "),
    *("phone", "Please call me at ", "Fax", "tel", "tél.", ": "),
    *("55 12 34 56", "12-34-56-78", "555 12 34", "电话", "is", "number "),
    *("(075) - 123 45 67", "(415) 555-0132", "+44 (0)20 7946 0958", "1380", "0138"),
    *("000", "-", "(", ")", "+", "06 12 34 56 78"),
    *("api_key", "api key", "token id", "=", "token: ", "Password", "密码"),
    *("是", "Hunter2024!x", LETTERS, "1", "9x8", "\"", "secret"),
    *("Authorization: Bearer ", "Basic ", "abcdef1234567890abcdef"),
    *("postgres://user:", "@host", "AKIAIOSFODNN7EXAMPLE"),
    *("身份证号", "110105194912310021", "110105 19491231 002X"),
    *("4111 1111 1111 1111", "a.b@c.de", "10.1.2.3", "2001:db8::7"),
    *("00:1a:2b:3c:4d:5e", "\n", "\t", ".", "x"),
)  # fmt: skip


def found(text):
    return [(span.kind, text[span.start : span.end]) for span in SCANNER.find([text])[0]]


def made(count, seed):
    choose = random.Random(seed)
    for _ in range(count):
        yield "".join(choose.choices(PIECES, k=choose.randint(2, 7)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("姓名：李小明　年　龄：45", "李小明"),
        ("姓名：李小明　性　别：不详", "李小明"),
        ("姓名：李小明\u00a0性\u00a0别：不详", "李小明"),
        ("Name: John Smith | Sex |", "John Smith"),
        ("John Smith, aged45", "John Smith"),
        ("Please call me at 55 12 34 56", "55 12 34 56"),
        ("phone: 12-34-56-78", "12-34-56-78"),
        ("Fax 555 12 34", "555 12 34"),
        (f"api_key={LETTERS}9x8", f"{LETTERS}9x8"),
        (f"token: {LETTERS}9x8", f"{LETTERS}9x8"),
        ("(415)\u00a0555-0132", "(415)\u00a0555-0132"),
        ("Password:\u00a0Hunter2024!x", "Hunter2024!x"),
        ("Authorization: Bearer\u00a0abcdef1234567890", "abcdef1234567890"),
        ("密码：\u3000Hunter2024!x", "Hunter2024!x"),
        ("John\u00a0Smith, a five\u2003year\u00a0old", "John\u00a0Smith"),
    ],
)
def test_a_sign_stands_wherever_a_rule_finds(text, value):
    assert [piece for _, piece in found(text)] == [value]


def test_the_scanner_finds_what_the_rules_find_on_the_whole_text():
    """Texts put together from pieces of all kinds; every rule looks at each as if its sign stood there."""
    hits = 0
    for text in made(8_000, seed=7):
        expected = SCANNER._exact(text, EVERYTHING)
        assert list(SCANNER.find([text])[0]) == expected, text
        hits += bool(expected)
    assert hits > 1_000


def test_a_space_of_another_width_hides_nothing():
    choose = random.Random(11)
    hits = 0
    for text in (folded(text)[0] for text in made(8_000, seed=8)):
        other = "".join(choose.choice(SPACES) if character == " " else character for character in text)
        expected = list(SCANNER.find([text])[0])
        assert list(SCANNER.find([other])[0]) == expected, other
        hits += bool(expected)
    assert hits > 1_000
