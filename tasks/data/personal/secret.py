"""Keys, tokens and passwords: by the form their issuer gives them, and by the word before them."""

import math
import re
from collections import Counter
from collections.abc import Iterator

import regex

from tasks.data.personal.signs import ASSIGNED, ISSUED, PREFIXED, WORD_FOR_PASSWORD, Locator
from tasks.data.personal.spans import Offsets, without_overlaps

_ISSUERS = Locator(ISSUED)
_PREFIXES = Locator(PREFIXED)
_ASSIGNMENTS = Locator(ASSIGNED)

# What tells the form of an issuer; each starts with letters that hardly occur otherwise.
_ISSUED = re.compile(
    r"(?<![A-Za-z0-9_\-])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"  # GitHub
    r"|gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_\-]{20,64}"  # GitLab
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,255}|xapp-[0-9]-[A-Za-z0-9\-]{10,255}"  # Slack
    r"|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,512}|GOCSPX-[A-Za-z0-9_\-]{20,40}"  # Google
    r"|[spr]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{24,64}"  # Stripe
    r"|sk-(?:ant-|proj-|or-)?[A-Za-z0-9_\-]{20,255}"  # OpenAI, Anthropic, and those who copy them
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,255}|dop_v1_[a-f0-9]{64}"
    r"|SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"  # SendGrid
    r"|LTAI[A-Za-z0-9]{12,26}|AKID[A-Za-z0-9]{13,40}"  # Alibaba Cloud, Tencent Cloud
    r"|[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}"  # Telegram
    r"|eyJ[A-Za-z0-9_\-]{8,}+\.eyJ[A-Za-z0-9_\-]{8,}+(?:\.[A-Za-z0-9_\-]{8,}+)?"  # JSON web token (RFC 7519)
    r")(?![A-Za-z0-9_])"
)
_HAS_DIGIT = re.compile("[0-9]")

# Not `re`: until Python 3.11.5 its possessive quantifiers are wrong around groups (cpython#106052).
_KEY_BEGIN = regex.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s]|\\[nr])*+"
)
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{1,50}-----")
_LONGEST_KEY_CHARS = 16_384
_LONGEST_END_CHARS = 64

_IS_PASSWORD = re.compile(WORD_FOR_PASSWORD, re.IGNORECASE)
_IS_KEY_ONLY = re.compile(r"key(?![A-Za-z]|[ _\-](?:id|key))", re.IGNORECASE)
_VALUE = re.compile(r"[^\s\"'`,;<>(){}\[\]|，。；、：（）]{6,512}")
_AFTER_PREFIX = re.compile(r"\s{0,3}([A-Za-z0-9._~+/\-]{16,4096}=*)")
_AFTER_USER = re.compile("([^\\s/:@]{3,128})@")
_PLACEHOLDER = re.compile(
    r"[$%*]|(?:your|my|the|some|a|new|old|test|dummy|example|changeme|placeholder|none|null|true|false|undefined|string|"
    r"required|optional|process\.|os\.|env\.|self\.|settings\.|config\.|https?:|/|\.)[a-z]*(?:[._\-][a-z._\-]*)?\Z|"
    r"process\.|os\.environ|https?://|\.{0,2}/|[*x•.\-_]+\Z",
    re.IGNORECASE,
)
_LETTER = re.compile("[A-Za-z]")
_SYMBOL = re.compile(r"[!@#$%^&*+=?~]")
_WORDS = re.compile(r"[A-Za-z]+(?:[._\-/][A-Za-z]+)*[._\-]?[0-9]{0,3}\Z")
_RANDOM_BITS = 3.0
_RANDOM_CHARS = 20
_SHORTEST_TOKEN_CHARS = 8


def find_issued(text: str) -> list[Offsets]:
    """Find keys in the form that their issuer gives them, and blocks of private keys."""
    found = list(_private_keys(text)) if "-----BEGIN" in text else []
    for start, _ in _ISSUERS.places(text):
        issued = _ISSUED.match(text, start)
        if issued and (_HAS_DIGIT.search(issued[0]) or not issued[0].startswith("sk-")):
            found.append(issued.span())
    return without_overlaps(found)


def find_prefixed(text: str) -> list[Offsets]:
    """Find what follows Bearer and Basic, and passwords in addresses (postgres://user:password@host)."""
    found: list[Offsets] = []
    for _, end in _PREFIXES.places(text):
        in_address = text[end - 1] == ":"
        match = (_AFTER_USER if in_address else _AFTER_PREFIX).match(text, end)
        if match and not _PLACEHOLDER.match(match[1]) and (in_address or _HAS_DIGIT.search(match[1])):
            found.append(match.span(1))
    return without_overlaps(found)


def find_assigned(text: str) -> list[Offsets]:
    """Find the values of passwords, tokens and keys: of `password = "…"` the value only.

    What looks like a placeholder (${TOKEN}, your_api_key, ****), a name or a call stays.
    """
    found: list[Offsets] = []
    for begin, start in _ASSIGNMENTS.places(text):
        match = _VALUE.match(text, start)
        if match is None or (begin and text[begin - 1].isascii() and text[begin - 1].isalpha()):
            continue
        value = match[0]
        if text[start - 1] not in "\"'`":
            value = value.rstrip(".")
        if text[match.end() : match.end() + 1] == "(" or _PLACEHOLDER.match(value) or not value.isascii():
            continue
        if _is_secret(text[begin:start], value):
            found.append((start, start + len(value)))
    return without_overlaps(found)


def _private_keys(text: str) -> Iterator[Offsets]:
    """Yield blocks of private keys; one that was cut off ends with its last line."""
    end: re.Match[str] | None = None
    searched = 0
    for match in _KEY_BEGIN.finditer(text):
        start, limit = match.start(), match.start() + _LONGEST_KEY_CHARS
        # What the search for an earlier block passed over, this one need not: many begins may stand before one end.
        if end is None or end.start() < start:
            end = _KEY_END.search(text, max(start, searched), limit)
            searched = end.start() if end else limit - _LONGEST_END_CHARS
        yield start, end.end() if end else match.end()


def _is_secret(key: str, value: str) -> bool:
    """Tell whether the value of a key with such a name is the secret itself and not a word about it."""
    if _IS_PASSWORD.match(key):
        return _looks_chosen(value)
    if _IS_KEY_ONLY.match(key):
        return _looks_random(value)
    return len(value) >= _SHORTEST_TOKEN_CHARS and _has_letter_and_digit(value) and not _WORDS.match(value)


def _looks_chosen(value: str) -> bool:
    """Tell whether a person may have chosen it as a password: digits only, or letters with digits or symbols."""
    if value.isdigit():
        return True
    return bool(_LETTER.search(value)) and bool(_HAS_DIGIT.search(value) or _SYMBOL.search(value))


def _looks_random(value: str) -> bool:
    """Tell whether a long value has the entropy of a key and not that of words: bits a character, after Shannon."""
    if len(value) < _RANDOM_CHARS or _WORDS.match(value) or not _has_letter_and_digit(value):
        return False
    total = len(value)
    entropy = -sum(count / total * math.log2(count / total) for count in Counter(value).values())
    digits = sum(map(str.isdigit, value))
    return entropy >= _RANDOM_BITS and digits >= 3


def _has_letter_and_digit(value: str) -> bool:
    return bool(_LETTER.search(value)) and bool(_HAS_DIGIT.search(value))
