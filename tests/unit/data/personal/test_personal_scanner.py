"""What is found and what is left alone; the wider measure is the labelled file."""

import random

import pytest

from tasks.contracts.errors import DataError
from tasks.data.personal import secret
from tasks.data.personal.scanner import PersonalScanner
from tasks.data.personal.spans import Span, merged

KINDS = ("email", "phone", "china_id", "bank_card", "ip_address", "mac_address", "secret", "name_with_age")
SCANNER = PersonalScanner(KINDS, {})
MOBILE = "13800138000"
ID_AND_CARD = "620102198001010754"


def found(text, scanner=SCANNER):
    return [(span.kind, text[span.start : span.end]) for span in scanner.find([text])[0]]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to first.last+tag@mail.example.co.uk.", "email", "first.last+tag@mail.example.co.uk"),
        ("请发到zhang_3@qq.com谢谢", "email", "zhang_3@qq.com"),
        ("+44 (0)20 7946 0958 works", "phone", "+44 (0)20 7946 0958"),
        ("手机138-0013-8000。", "phone", "138-0013-8000"),
        ("+44 20 7946 0958 2024 was the year", "phone", "+44 20 7946 0958"),
        ("身份证11010519491231002x", "china_id", "11010519491231002x"),
        ("身份证号110101199003077380", "china_id", "110101199003077380"),
        ("ID card: 110101 19900307 7380", "china_id", "110101 19900307 7380"),
        ("card 4111 1111 1111 1111,", "bank_card", "4111 1111 1111 1111"),
        ("at 2001:db8::7334/64", "ip_address", "2001:db8::7334"),
        ("ether 00:1a:2b:3c:4d:5e.", "mac_address", "00:1a:2b:3c:4d:5e"),
        ('password = "tiger#42!"', "secret", "tiger#42!"),
        ("患者欧阳小明，男，45岁", "name_with_age", "欧阳小明"),
        ("Mary-Ann O'Brien, a 71-year-old woman", "name_with_age", "Mary-Ann O'Brien"),
    ],
)
def test_a_value_is_found_with_its_exact_bounds(text, kind, value):
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        f"x{MOBILE}", f"{MOBILE}9", f"9{MOBILE}", f"{MOBILE}.5", f"0.{MOBILE}", f"a_{MOBILE}_b", f"订单号：{MOBILE}",
        f"共{MOBILE}元", f"x = {MOBILE} * 2", "commit 13800138000138001380013800138000abcdef12", "v1.2.3.4",
        "版本1.2.3.4",
        "127.0.0.1", "255.255.255.0", "1.2.3.4.5", "256.1.1.1", "std::vector<a::b>", "12:30:45", "4111 1111 1111 1112",
        "110105194912310021", "110105194913310020", "2024-01-15 12:30:45", "01-02-03-04-05-06", "00:00:00:00:00:00",
        "证书110101199003077380", "身份证号110101199013077380", "身份证号190101199003077380",
        "password: str", "token = get_token(user)", "api_key=${API_KEY}", "密码长度不少于8位",
        "患者，男，45岁", "患者男性，45岁",
        "高血压，男，45岁", "A 45-year-old man", "icon@2x.png", "git@github.com:org/repo", "max_tokens: 128000",
        "1700000000000", "978-7-111-12806-9", "$13,800,138,000.00", "/img/13800138000.jpg",
    ],
)  # fmt: skip
def test_what_only_looks_like_personal_data_stays(text):
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    ["手机１３８００１３８０００", "手机138\u200b0013\u200b8000", "手机١٣٨٠٠١٣٨٠٠٠", "手机138‑0013‑8000",
     "手机\u202a13800138000\u202c", "手机𝟏𝟑𝟖𝟎𝟎𝟏𝟑𝟖𝟎𝟎𝟎", "手机13８0０138000", "手机138\u00a00013\u00a08000"],
)  # fmt: skip
def test_characters_that_look_like_digits_or_like_nothing_hide_no_number(text):
    spans = SCANNER.find([text])[0]
    assert [span.kind for span in spans] == ["phone"]
    assert text[: spans[0].start].rstrip("\u202a") == "手机"
    assert not any(character.isdecimal() for character in text[spans[0].end :])


def test_offsets_count_characters_of_the_text_as_it_is():
    text = "😀é１３８００１３８０００ \u200b\u200b a@example.com 患者张三，女，3岁"
    assert found(text) == [("phone", "１３８００１３８０００"), ("email", "a@example.com"), ("name_with_age", "张三")]


def test_invisible_characters_around_a_value_are_no_part_of_it():
    assert found("手机\u200b138\u200b00138000\u200b。") == [("phone", "138\u200b00138000")]


def test_only_the_wanted_kinds_are_found():
    assert found(f"a@example.com {MOBILE}", PersonalScanner(["email"], {})) == [("email", "a@example.com")]


def test_an_identity_number_that_is_a_card_number_too_counts_as_an_identity_number():
    assert found(ID_AND_CARD) == [("china_id", ID_AND_CARD)]
    assert found(ID_AND_CARD, PersonalScanner(["bank_card"], {})) == [("bank_card", ID_AND_CARD)]


def test_of_what_overlaps_the_secret_has_it():
    text = "postgres://me:13800138000@10.0.0.5/x"
    assert found(text) == [("secret", "13800138000"), ("ip_address", "10.0.0.5")]


def test_many_texts_give_what_each_gives_alone():
    texts = ["", "a@example.com", f"{MOBILE}", "nothing", "患者张三，女，3岁", "\x00", "a@example.com"]
    assert SCANNER.find(texts) == [SCANNER.find([text])[0] for text in texts]


def test_a_private_key_is_found_whole_and_one_that_was_cut_off_to_its_last_line():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabcdefghijklmnop\n"
    whole = key + "-----END RSA PRIVATE KEY-----"
    assert found(f"see {whole} end") == [("secret", whole)]
    assert found(f"see {key}") == [("secret", key)]


def test_private_keys_end_where_a_search_for_each_alone_would_end_them():
    choose = random.Random(4)
    begin, end = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    limit = secret._LONGEST_KEY_CHARS
    for _ in range(300):
        fillers = (begin, begin, end, "!", "Ab1\n", "!" * choose.choice((limit // 2, limit - 64, limit - 60, limit)))
        text = begin + "".join(choose.choices(fillers, k=8))
        alone = []
        for match in secret._KEY_BEGIN.finditer(text):
            close = secret._KEY_END.search(text, match.start(), match.start() + limit)
            alone.append((match.start(), close.end() if close else match.end()))
        assert list(secret._private_keys(text)) == alone


def test_user_patterns_come_first_and_are_linear_time_expressions():
    scanner = PersonalScanner(["phone"], {"STAFF": r"EMP-[0-9]{6}", "LOCAL": "138[0-9]+"})
    assert found(f"EMP-123456 {MOBILE} 工号EMP-000001", scanner) == [
        ("STAFF", "EMP-123456"), ("LOCAL", MOBILE), ("STAFF", "EMP-000001")
    ]  # fmt: skip
    assert found("ＥＭＰ－１２３４５６", scanner) == [("STAFF", "ＥＭＰ－１２３４５６")]


@pytest.mark.parametrize(
    ("pattern", "why"), [("(", "no RE2 expression"), (r"(a)\1", "no RE2 expression"), ("x*", "empty text")]
)
def test_a_bad_user_pattern_is_refused_with_its_name(pattern, why):
    with pytest.raises(DataError, match=rf"patterns\.BAD .*{why}"):
        PersonalScanner(["email"], {"BAD": pattern})


def test_merging_keeps_what_was_there_and_adds_what_fits_between():
    accepted = [Span("a", 2, 4), Span("a", 8, 10)]
    assert merged(accepted, "b", [(0, 1), (3, 5), (4, 8), (9, 11), (12, 13)]) == [
        Span("b", 0, 1), Span("a", 2, 4), Span("b", 4, 8), Span("a", 8, 10), Span("b", 12, 13)
    ]  # fmt: skip
    assert merged([Span("a", 8, 10)], "b", [(0, 2), (6, 9)]) == [Span("b", 0, 2), Span("a", 8, 10)]
    assert merged([], "b", [(0, 1)]) == [Span("b", 0, 1)]
    assert merged(accepted, "b", []) == accepted
