"""What a piece of personal data cannot be without: short expressions that a fast automaton looks for.

A sign may stand where there is nothing personal and must stand wherever a rule would find something. The gate asks
which signs a text has at all; a rule then looks only around the places where its own stand.
"""

from collections.abc import Iterator

import re2

from tasks.data.personal.spans import Offsets

AT = "@[0-9A-Za-z]"
DIGITS = r"[0-9](?:[ ().\-/]{0,3}[0-9]){8}|[0-9]{3,4}[ .\-]?[0-9]{4}"
"""Nine digits or more, or the seven or eight of a local telephone number; a date has eight in other groups."""
V4 = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
V6 = "[0-9A-Fa-f]{4}:[0-9A-Fa-f]{0,4}:"
MAC = r"[0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-]"
CISCO_MAC = r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\."
ISSUED = (
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt)-|xox[a-z]-|xapp-|AIza|ya29\.|GOCSPX-|[spr]k_live_|"
    r"[spr]k_test_|whsec_|sk-|hf_|npm_|pypi-|dop_v1_|SG\.|LTAI|AKID|[0-9]{8,10}:AA|eyJ|-----BEGIN"
)
PREFIXED = r"(?i:\bbearer|\bbasic)\s|[A-Za-z]://[^\s/:@]{1,64}:"
WORD_FOR_PASSWORD = "pass(?:word|wd|code|phrase)?|pwd|passwort|口令|密码"  # noqa: S105 (words, none of them a secret)
_KEY_WORD = (
    r"(?:(?:client|app|shared|signing|webhook|jwt|api|access|secret|private|auth|encryption|account|storage)[ _\-]?)?"
    r"(?:secret|token|key)(?:[ _\-]?(?:key|id))?|appsecret|apikey|credential|signature|密钥|令牌|秘钥"
)
ASSIGNED = (
    rf"(?i:(?:{WORD_FOR_PASSWORD}|{_KEY_WORD})[\"'\]]{{0,2}}\s{{0,3}}(?::=|=>|[=:：]|\bis\b|是|为)\s{{0,3}}[\"'`]?)"
)
ASSIGNED_VALUE = ASSIGNED + r"[^\s\"'`,;<>(){}\[\]|]{0,40}[0-9!@#$%^&*+=?~]"
"""With the beginning of a value up to the first character that no word has."""
HAN_AGE = r"[岁歲歳]|个多?月|月龄|日龄|[男女]|性\s?别|年\s?龄"
ENGLISH_AGE = (
    r"[ \-](?:years?|yrs?|months?)[ \-]olds?|[0-9 \-]y\.?/?o\b|(?:year|yr)s? of age|\b[Aa]ged?[ :][ :]?[0-9]"
    r"|(?:[Aa]ge|[Ss]ex|[Gg]ender|DOB)\b ?:"
    r"|[0-9][,/]? ?(?:male|female|man|woman|boy|girl|gentleman|lady|M|F)\b"
    r"|\b(?:male|female|man|woman|boy|girl|gentleman|lady|M|F)[,/]? ?(?:aged? )?[0-9]"
)


class Locator:
    """Finds the places where an expression matches, in time linear in the text (RE2)."""

    def __init__(self, sign: str) -> None:
        options = re2.Options()
        options.never_capture = True
        self._sign = re2.compile(sign, options)

    def places(self, text: str) -> Iterator[Offsets]:
        """Yield where the sign stands, in order."""
        # In ASCII characters are bytes, which spares the search to count the ones as the others.
        for match in self._sign.finditer(text.encode() if text.isascii() else text):
            yield match.span()


class Hint:
    """Tells whether an expression matches somewhere in a short text; a set of one is RE2's fastest way to ask."""

    def __init__(self, expression: str) -> None:
        self._set = re2.Set.SearchSet()
        self._set.Add(expression)
        self._set.Compile()

    def is_in(self, text: str) -> bool:
        """Tell whether it matches."""
        return self._set.Match(text.encode()) is not None
