"""Invented values of every kind of personal data, and numbers that only look like some. They are nobody's."""

import random
import re
import string
from collections.abc import Callable

Maker = Callable[[random.Random], str]

_FIRSTS = "James Mary Robert Linda Ahmed Priya Olga Carlos Ingrid Kenji Fatima Liam Chloe Marta Sven Nadia Tomas Aisha"
_FIRST = _FIRSTS.split()
_LASTS = "Smith Johnson Okafor Garcia Petrov Tanaka O'Brien Novak Kowalski Haddad Lindqvist Moreau Rossi Becker Singh"
_LAST = _LASTS.split()
_ZH_FAMILY = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许邓冯韩曹曾彭萧蔡潘田董袁于余叶蒋杜苏魏程吕丁沈任"
_ZH_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰建国志海燕文斌浩宇欣怡子涵梓轩诗晨雨婷思远俊峰"
_DOMAINSS = (
    "example.com mail.example.org qq.com 163.com gmail.com st-anna-clinic.example corp.example.co.uk uni-muster.de"
)
_DOMAINS = _DOMAINSS.split()


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def _text(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choices(alphabet, k=count))


def person(rng: random.Random) -> str:
    """Return an English name."""
    middle = rng.choice(["", "", "", f" {rng.choice(string.ascii_uppercase)}."])
    return f"{rng.choice(_FIRST)}{middle} {rng.choice(_LAST)}"


def chinese_person(rng: random.Random) -> str:
    """Return a Chinese name."""
    family = rng.choice(["欧阳", "上官", "司马"]) if rng.random() < 0.05 else rng.choice(_ZH_FAMILY)
    return family + _text(rng, _ZH_GIVEN, rng.choice((1, 2, 2)))


def email(rng: random.Random) -> str:
    """Return an e-mail address."""
    first, last = rng.choice(_FIRST).lower(), rng.choice(_LAST).lower().replace("'", "")
    local = rng.choice(
        [
            f"{first}.{last}",
            f"{first[0]}{last}{rng.randint(1, 99)}",
            f"{first}_{last}",
            f"{first}+news",
            _digits(rng, 8),
        ]
    )
    return f"{local}@{rng.choice(_DOMAINS)}"


def chinese_mobile(rng: random.Random) -> str:
    """Return a Chinese mobile number."""
    number = f"1{rng.randint(3, 9)}{_digits(rng, 9)}"
    split = (number[:3], number[3:7], number[7:])
    return rng.choice(
        [
            number,
            number,
            number,
            "-".join(split),
            " ".join(split),
            f"+86 {number}",
            f"+86-{'-'.join(split)}",
            f"86{number}",
        ]
    )


def chinese_landline(rng: random.Random) -> str:
    """Return a Chinese landline number."""
    area = rng.choice(["010", "021", "0755", "0571", "028"])
    return rng.choice([f"{area}-{rng.randint(2, 8)}{_digits(rng, 7)}", f"({area}){rng.randint(2, 8)}{_digits(rng, 7)}"])


def american_phone(rng: random.Random) -> str:
    """Return a North American number."""
    area, exchange, line = (
        f"{rng.randint(2, 9)}0{rng.randint(1, 9)}",
        f"{rng.randint(2, 9)}{rng.randint(20, 99)}",
        _digits(rng, 4),
    )
    forms = ["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {} {} {}", "+1-{}-{}-{}", "1-{}-{}-{}", "+1{}{}{}"]
    return rng.choice(forms).format(area, exchange, line)


def european_phone(rng: random.Random) -> str:
    """Return a European number."""

    def d(count: int) -> str:
        return str(rng.randint(1, 9)) + _digits(rng, count - 1)

    forms = [
        f"+44 20 {d(4)} {d(4)}",
        f"020 {d(4)} {d(4)}",
        f"07{d(3)} {d(6)}",
        f"+49 {d(3)} {d(7)}",
        f"0{d(3)} {d(7)}",
        f"+33 {d(1)} {d(2)} {d(2)} {d(2)} {d(2)}",
        f"0{d(1)}.{d(2)}.{d(2)}.{d(2)}.{d(2)}",
        f"+34 6{d(2)} {d(3)} {d(3)}",
        f"+39 3{d(2)} {d(3)} {d(4)}",
        f"+41 (0)79 {d(3)} {d(2)} {d(2)}",
        f"+31 6{d(8)}",
        f"+46 70 {d(3)} {d(2)} {d(2)}",
    ]
    return rng.choice(forms)


def china_id(rng: random.Random) -> str:
    """Return an identity number with a right check digit."""
    region = rng.choice(["110105", "310115", "440305", "510107", "330106", "420111", "610113", "230103"])
    body = f"{region}{rng.randint(1938, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{_digits(rng, 3)}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[sum(int(c) * w for c, w in zip(body, weights, strict=True)) % 11]
    number = body + (check.lower() if rng.random() < 0.3 else check)
    return f"{number[:6]} {number[6:14]} {number[14:]}" if rng.random() < 0.15 else number


def luhn(body: str) -> str:
    """Return the digits with the check digit that makes them pass."""
    total = sum(sum(divmod(int(c) * 2, 10)) if i % 2 == 0 else int(c) for i, c in enumerate(reversed(body)))
    return body + str(-total % 10)


def bank_card(rng: random.Random) -> str:
    """Return a card number with a right check digit."""
    prefix, size = rng.choice(
        [
            ("4", 16),
            ("4", 16),
            ("52", 16),
            ("37", 15),
            ("6011", 16),
            ("622848", 19),
            ("621700", 19),
            ("622588", 16),
            ("3530", 16),
        ]
    )
    number = luhn(prefix + _digits(rng, size - len(prefix) - 1))
    fours = [number[i : i + 4] for i in range(0, size, 4)]
    groups = [number[:4], number[4:10], number[10:]] if size == 15 else fours
    return rng.choice([number, " ".join(groups), "-".join(groups)])


def ip_address(rng: random.Random) -> str:
    """Return an IPv4 or IPv6 address."""
    if rng.random() < 0.3:
        groups = [f"{rng.randint(0x2001, 0x2FFF):x}"] + [f"{rng.randint(1, 0xFFFF):x}" for _ in range(7)]
        return rng.choice([":".join(groups), ":".join(groups[:3]) + "::" + groups[7], f"fe80::{groups[1]}:{groups[2]}"])
    first = rng.choice([10, 172, 192, 203, 198, 81, 114])
    return f"{first}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"


def mac_address(rng: random.Random) -> str:
    """Return a MAC address."""
    pairs = [f"{rng.randint(0, 255):02x}" for _ in range(5)] + [rng.choice(["a7", "c0", "3f"])]
    joined = rng.choice([":".join(pairs), "-".join(pairs), ":".join(pairs).upper()])
    return ".".join("".join(pairs[i : i + 2]) for i in (0, 2, 4)) if rng.random() < 0.15 else joined


_BASE62 = string.ascii_letters + string.digits


def issued_secret(rng: random.Random) -> str:
    """Return a key in the form that its issuer gives it."""
    return rng.choice(
        [
            "AKIA" + _text(rng, string.ascii_uppercase + "234567", 12) + "2345",
            "ghp_" + _text(rng, _BASE62, 35) + "7",
            f"xoxb-{_digits(rng, 12)}-{_digits(rng, 12)}-{_text(rng, _BASE62, 24)}",
            "AIza" + _text(rng, _BASE62 + "_-", 34) + "5",
            "sk-" + _text(rng, _BASE62, 47) + "3",
            "eyJhbGciOiJIUzI1NiJ9.eyJ" + _text(rng, _BASE62, 40) + "." + _text(rng, _BASE62 + "_-", 42) + "1",
            "LTAI5t" + _text(rng, _BASE62, 17) + "8",
            "hf_" + _text(rng, _BASE62, 33) + "2",
        ]
    )


def private_key(rng: random.Random) -> str:
    """Return a block of a private key."""
    lines = "\n".join(_text(rng, _BASE62 + "+/", 64) for _ in range(4))
    kind = rng.choice(["RSA ", "EC ", "", "OPENSSH "])
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def password(rng: random.Random) -> str:
    """Return a password as people choose them."""
    return (
        rng.choice(["Tiger", "blau", "Winter", "xk", "Qq"])
        + rng.choice("!@#_$")
        + _digits(rng, 4)
        + _text(rng, _BASE62, 3)
    )


def hex_key(rng: random.Random) -> str:
    """Return a random key in hexadecimal."""
    return _text(rng, "0123456789abcdef", 39) + "9"


MAKERS: dict[tuple[str, str], tuple[Maker, ...]] = {
    ("en", "phone"): (american_phone, european_phone),
    ("zh", "phone"): (chinese_mobile, chinese_mobile, chinese_mobile, chinese_landline),
    ("en", "name_with_age"): (person,),
    ("zh", "name_with_age"): (chinese_person,),
} | {
    (language, kind): (maker,)
    for language in ("en", "zh")
    for kind, maker in {
        "email": email,
        "china_id": china_id,
        "bank_card": bank_card,
        "ip_address": ip_address,
        "mac_address": mac_address,
        "secret": issued_secret,
    }.items()
}
"""Language and kind → what makes its values."""

_BLANK = re.compile("<(?:([dx])([0-9]+)|n(0?)([0-9]+)-([0-9]+)|(ms|s|badcard|badid))>")


def filled(form: str, rng: random.Random) -> str:
    """Return a form with numbers in the place of <d7>, <x40>, <n1-12>, <n01-12>, <ms>, <s>, <badcard> and <badid>."""

    def value(blank: re.Match[str]) -> str:
        alphabet, count, padded, low, high, name = blank.groups()
        if alphabet:
            return _text(rng, string.digits if alphabet == "d" else "0123456789abcdef", int(count))
        if low:
            number = rng.randint(int(low), int(high))
            return f"{number:02}" if padded else str(number)
        if name in ("ms", "s"):
            return str(rng.randint(1_500_000_000, 1_790_000_000)) + ("" if name == "s" else _digits(rng, 3))
        return _broken_card(rng) if name == "badcard" else _broken_id(rng)

    return _BLANK.sub(value, form)


def _broken_card(rng: random.Random) -> str:
    number = luhn("4" + _digits(rng, 14))
    return number[:15] + str((int(number[15]) + rng.randint(1, 9)) % 10)


def _broken_id(rng: random.Random) -> str:
    number = china_id(rng).replace(" ", "")
    return number[:17] + ("1" if number[17] != "1" else "2")
