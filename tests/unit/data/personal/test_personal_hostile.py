"""Text that was made to be slow: four times as much of it may take four times as long, not sixteen times."""

import time

import pytest

from tasks.data.personal import secret
from tasks.data.personal.pseudonyms import replaced
from tasks.data.personal.scanner import PersonalScanner

pytestmark = pytest.mark.slow

KINDS = ("email", "phone", "china_id", "bank_card", "ip_address", "mac_address", "secret", "name_with_age")
SCANNER = PersonalScanner(KINDS, {"STAFF": "EMP-[0-9]{6}", "NESTED": "(a+)+b"})
UNITS = (
    "1234567890", "12 34 ", "1 ", "11010519491231002X ", "13800138000 ", "+44 20 7946 0958 ", "+", "((0(",
    "tel: 5550123 ", "4111 1111 1111 1111 ", "1.", "10.1.2.3 ", "2001:", "2001:db8:", "00:1a:",
    "00:1a:2b:3c:4d:5e ", "@", "a@", "a@a.", "a.b@c.de ", "a", "eyJ", "eyJaaaaaaaaa.", "eyJaaaaaaaaa.eyJ",
    "-----BEGIN PRIVATE KEY-----", "AKIA", "ghp_", "password=", "password: a1b2c3d4 ", "token\"'\"'=", "key is ",
    "bearer ", "a://b:", "a://b:c@", "岁", "男", "男,", "张三,男,45岁。", "患者张三男", "张三", "45 y/o ", "Aa ",
    "John Smith, 45-year-old ", "age 45 ", "O'", "１３８００１３８０００ ", "\u200b1", "<PHONE_1>", " ", "\n",
    "\x00",
)  # fmt: skip
SMALL, LARGE, CHARS_PER_SECOND = 10_000, 40_000, 40_000


def seconds(text):
    """Return the processor time of one scan and, if something was found, of the replacing; the better of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        spans = SCANNER.find([text])
        if spans[0]:
            replaced([text], spans)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: repr(unit)[:20])
def test_time_grows_as_the_text_does(unit):
    small, large = (seconds((unit * size)[:size]) for size in (SMALL, LARGE))
    assert large < 9 * max(small, 0.002), f"{small:.4f} s, then {large:.4f} s for four times as much"
    assert large < LARGE / CHARS_PER_SECOND


def test_how_far_a_private_key_may_reach_does_not_multiply_the_time(monkeypatch):
    """Many begins look for an end together; each alone would look through all that a key may hold."""
    text = "-----BEGIN PRIVATE KEY-----" * 8_000

    def took(limit):
        monkeypatch.setattr(secret, "_LONGEST_KEY_CHARS", limit)
        return seconds(text)

    assert took(65_536) < 3 * took(1_024)


def test_many_different_values_in_one_conversation_are_replaced_in_linear_time():
    def conversation(count):
        return " ".join(f"user{number}@example.com" for number in range(count))

    small, large = seconds(conversation(2_000)), seconds(conversation(8_000))
    assert large < 9 * max(small, 0.002)
