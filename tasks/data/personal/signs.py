"""What a piece of personal data cannot be without: short expressions that a fast automaton looks for.

A sign may stand where there is nothing personal and must stand wherever a rule would find something. The gate asks
which signs a text has at all; a rule then looks only around the places where its own stand.
"""

from collections.abc import Iterator

import re2

from tasks.data.cleaning.gate import ranges_of
from tasks.data.personal.spans import Offsets

_SPACES = ranges_of(filter(str.isspace, map(chr, range(1, 0x3001))))
SPACE = f"[{_SPACES}]"
"""What `\\s` is to the rules, which are Python's; RE2 means the spaces of ASCII by it."""

AT = "@[0-9A-Za-z]"
DIGITS = r"[0-9](?:[ ().\-/]{0,4}[0-9]){8}|[0-9]{3,4}[ .\-]?[0-9]{4}"
"""Nine digits or more, or the seven or eight of a local telephone number; a date has eight in other groups."""
ANNOUNCER = (
    r"(?i:(?:\b(?:tele)?phone|\bmobile|\bcell(?:{S}?phone)?(?:{S}|:)|\btel|\bfax|\bwhatsapp|\bhandy|\btelefon|"
    r"\bt[ée]l[ée]phone|\bt[ée]l|"
    r"\btel[ée]fono|\bm[óo]vil|\b(?:reach|contact)(?:{S}me|{S}us|{S}him|{S}her|{S}them){S}(?:at|on)|"
    r"\b(?:call|ring|dial|text)(?:{S}me|{S}us|{S}him|{S}her|{S}them)?(?:{S}at|{S}on)?|"
    r"电话|手机|座机|传真|热线|手机号|联系方式|致电|拨打)"
    r"(?:{S}?(?:number|nummer|no|nr|is|was|号码|号|是|为|:|：|=|\.|\"|'|#|at|on|/|,|-)){0,4}{S}?[(\[]?)"
).replace("{S}", SPACE)
PHONE = rf"{DIGITS}|{ANNOUNCER.replace(chr(92) + 'b', '')}[0-9](?:[ ().\-/]{{0,2}}[0-9]){{6}}"
"""After a word that announces them, seven digits or eight in any groups; the word may begin where a rule looks."""
V4 = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
V6 = "[0-9A-Fa-f]{4}:[0-9A-Fa-f]{0,4}:"
MAC = r"[0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-]"
CISCO_MAC = r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\."
ISSUED = (
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt)-|xox[a-z]-|xapp-|AIza|ya29\.|GOCSPX-|[spr]k_live_|"
    r"[spr]k_test_|whsec_|sk-|hf_|npm_|pypi-|dop_v1_|SG\.|LTAI|AKID|[0-9]{8,10}:AA|eyJ|-----BEGIN"
)
PREFIXED = rf"(?i:\bbearer|\bbasic){SPACE}|[A-Za-z]://[^\s/:@]{{1,64}}:"
WORD_FOR_PASSWORD = "pass(?:word|wd|code|phrase)?|pwd|passwort|口令|密码"  # noqa: S105 (words, none of them a secret)
_KEY_WORD = (
    r"(?:(?:client|app|shared|signing|webhook|jwt|api|access|secret|private|auth|encryption|account|storage)"
    rf"[_\-{_SPACES}]?)?(?:secret|token|key)(?:[_\-{_SPACES}]?(?:key|id))?"
    r"|appsecret|apikey|credential|signature|密钥|令牌|秘钥"
)
ASSIGNED = (
    rf"(?i:(?:{WORD_FOR_PASSWORD}|{_KEY_WORD})[\"'\]]{{0,2}}"
    rf"{SPACE}{{0,3}}(?::=|=>|[=:：]|\bis\b|是|为){SPACE}{{0,3}}[\"'`]?)"
)
ASSIGNED_VALUE = ASSIGNED + r"[A-Za-z._\-/:\\]*[0-9!@#$%^&*+=?~]"
"""With the beginning of a value, which is ASCII, up to the first character that no word has."""
HAN_AGE = rf"[岁歲歳]|个多?月|月龄|日龄|[男女]|性{SPACE}?别|年{SPACE}?龄"
ENGLISH_AGE = (
    r"[-{S}](?:years?|yrs?|months?)[-{S}]olds?|[-0-9{S}]y\.?/?o\b|(?:year|yr)s?[{S}]of[{S}]age"
    r"|\b[Aa]ged?[{S}]?:?[0-9]"
    r"|(?:[Aa]ge|[Ss]ex|[Gg]ender|DOB)\b[{S}]?:|\b[Nn]ame[{S}]?:[{S}]?[A-ZÀ-Þ]"
    r"|[0-9][,/]?[{S}]?(?:male|female|man|woman|boy|girl|gentleman|lady|M|F)\b"
    r"|\b(?:male|female|man|woman|boy|girl|gentleman|lady|M|F)[,/]?[{S}]?(?:aged?[{S}])?[0-9]"
).replace("{S}", _SPACES)


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
