"""Telephone numbers: international, Chinese, North American and European, written as people write them.

Numbers that only their digits could give away (ten digits in a row, seven with a hyphen) count after a word such as
phone or 电话; those with a shape of their own (+44 20 …, 138 0013 8000, (415) 555-0132) count anywhere.
"""

import re
from collections.abc import Iterator

from tasks.data.personal.numbers import ENDS_ALONE, STANDS_ALONE, numbers_a_thing, text_before, with_edges
from tasks.data.personal.signs import ANNOUNCER, Hint
from tasks.data.personal.spans import Offsets, without_overlaps

_LABEL_OR_NOTHING = (
    r"(?:(?<![0-9A-Za-z_])|(?<=[Tt][Ee][Ll])|(?<=[Pp]hone)|(?<=PHONE)|(?<=[Mm]obile)|(?<=[VvWw][Xx])|(?<=QQ))"
)
"""No letter before it, except those of a label that was written without a space: Tel13800138000."""
_QUANTITY = (
    r"(?!\s?(?:元|美元|万|亿|块|日元|円|USD|EUR|RMB|CNY|bytes|字节|毫秒|微秒|ms\b|ns\b|次|人|吨|股|份|件|辆|户|字|倍|个(?!人)"
    r"|%|\*|\^)|\.(?:html?|jpe?g|png|gif|pdf|mp[34]|js|json|txt|csv|xml|zip)\b)"
)
"""It counts something, is an operand or names a file."""

_MOBILE = re.compile(
    _LABEL_OR_NOTHING
    + r"(?<![0-9][.\-])(?:\(?(?:\+|00)?86\)?[ \-]?)?"
    + r"1[3-9][0-9](?:[0-9]{8}|([ \-])[0-9]{4}\1[0-9]{4}|[0-9]([ \-])[0-9]{3}\2[0-9]{4})"
    + ENDS_ALONE
    + _QUANTITY
)
_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z_+])\(?(?:\+|00)[1-9](?:(?: ?\(0\) ?|\)?[ .\-/(]{0,2})[0-9]){6,14}" + ENDS_ALONE
)
_NORTH_AMERICAN = re.compile(
    rf"(?:{STANDS_ALONE}1[ .\-](?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[ .\-])"
    rf"|\([2-9][0-9]{{2}}\) ?|{STANDS_ALONE}[2-9][0-9]{{2}}([ .\-]))[2-9][0-9]{{2}}[ .\-][0-9]{{4}}"
    + ENDS_ALONE
    + r"(?:\s?(?:x|ext\.?|extension)\s?[0-9]{1,5}(?![0-9]))?"
)
# A trunk 0 with an area code of three digits or more; two digits with groups of four; or French pairs.
_TRUNK = re.compile(
    rf"(?:(?:\(0[0-9]{{2,5}}\)|{STANDS_ALONE}0[1-9][0-9]{{1,4}}) ?[ /\-]? ?[0-9]{{3,8}}(?:[ \-][0-9]{{2,6}}){{0,3}}"
    rf"|(?:\(0[1-9]\)|{STANDS_ALONE}0[1-9])[ \-][0-9]{{4}}[ \-]?[0-9]{{4}}"
    rf"|{STANDS_ALONE}0[1-9]([ .\-])[0-9]{{2}}(?:\1[0-9]{{2}}){{3}}(?!\1[0-9]))" + ENDS_ALONE
)
_HOTLINE = re.compile(STANDS_ALONE + r"[48]00([ \-])[0-9]{3,4}\1[0-9]{3,4}" + ENDS_ALONE)
_ANNOUNCER = Hint(f"{ANNOUNCER}$")
_ANNOUNCED_NUMBER = re.compile(r"[0-9](?:[ ().\-/]{0,2}[0-9]){6,11}" + ENDS_ALONE + _QUANTITY)
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}[ .\-/]?(?:0[1-9]|1[0-2])[ .\-/]?(?:0[1-9]|[12][0-9]|3[01])(?![0-9])"
    r"|0[1-9][./\-][0-9]{1,2}[./\-](?:19|20)"
)
_LIST_BEFORE = re.compile(r"[0-9,;\[(][ ]*$")
_LIST_AFTER = re.compile(r"[,;\])]? ?[0-9\[]")
"""Around one of several numbers in a row."""
_ZIP_CODE = re.compile("[0-9]{5}-[0-9]{4}")
_ARITHMETIC_BEFORE = re.compile(r"(?:[*<>%^&|\[$¥€￥£]|(?<![A-Za-z])\bx|[=+]) ?$")
_LABEL = Hint(r"(?i)(?:phone|mobile|\btel|\bt[ée]l|cell|num[ée]ro|手机|电话|联系)[^0-9]{0,12}$")

# Country code → digits of a number without it (ITU-T E.164, national numbering plans). Others: 7 to 12.
_NATIONAL_DIGITS = {
    "1": (10, 10), "7": (10, 10), "20": (8, 10), "27": (9, 9), "30": (10, 10), "31": (9, 9), "32": (8, 9), "33": (9, 9),
    "34": (9, 9), "36": (8, 9), "39": (8, 11), "40": (9, 9), "41": (9, 9), "43": (7, 13), "44": (9, 10), "45": (8, 8),
    "46": (7, 9), "47": (8, 8), "48": (9, 9), "49": (7, 12), "51": (8, 9), "52": (10, 11), "54": (10, 11),
    "55": (10, 11), "56": (9, 9), "57": (10, 10), "58": (10, 10), "60": (8, 10), "61": (9, 9), "62": (8, 12),
    "63": (8, 10), "64": (8, 10), "65": (8, 8), "66": (8, 9), "81": (9, 10), "82": (8, 10), "84": (9, 10),
    "86": (9, 11), "90": (10, 10), "91": (10, 10), "92": (9, 10), "93": (9, 9), "94": (9, 9), "95": (7, 10),
    "98": (10, 10), "351": (9, 9), "353": (7, 9), "380": (9, 9), "420": (9, 9), "421": (9, 9), "852": (8, 8),
    "853": (8, 8), "886": (8, 9), "966": (8, 9), "971": (8, 9), "972": (8, 9),
}  # fmt: skip
_OTHER_CODES = re.compile(r"2[1-69]|3[578]|42|5[09]|6[789]|8[0578]|9[679]")


def find_phones(text: str, runs: list[Offsets]) -> list[Offsets]:
    """Find telephone numbers in the runs of digits; the longest wins where several shapes fit."""
    found: list[Offsets] = []
    for run in runs:
        begin, stop = with_edges(run)
        for shape in (_international, _mobiles, _shaped):
            found += shape(text, begin, stop)
        found += _announced(text, run[0])
    return without_overlaps(found)


def _mobiles(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    for match in _MOBILE.finditer(text, begin, stop):
        start, end = match.span()
        bare = match[0].isdigit() and end - start == len("13800138000")
        if not (bare and _is_code_or_count(text, start, end)):
            yield start, end


def _is_code_or_count(text: str, start: int, end: int) -> bool:
    """Tell whether the bare digits at `start` are an operand, an amount or the number of a thing."""
    before = text_before(text, start)
    if numbers_a_thing(before):
        return True
    if text[end : end + 1] == "]" or text[end : end + 2] in (" *", " +", " %", " <", " >"):
        return True
    return bool(_ARITHMETIC_BEFORE.search(before)) and not _LABEL.is_in(before)


def _international(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    for match in _INTERNATIONAL.finditer(text, begin, stop):
        end = _end_of_number(text, *match.span())
        if end and not (text[match.start()] == "0" and _LIST_BEFORE.search(text_before(text, match.start()))):
            yield match.start(), end


def _end_of_number(text: str, start: int, end: int) -> int:
    """Return where a number ends whose length its country allows, cut at a gap if it is too long; 0: nowhere."""
    written = text[start:end]
    prefix = re.match(r"\(?(\+|00)", written)
    assert prefix is not None
    if prefix[1] == "00" and not re.search(r"[ .\-/(]", written) and not written.startswith("00861"):
        return 0
    while True:
        digits = re.sub(r"[^0-9]", "", written[prefix.end() :].replace("(0)", ""))
        if _fits_its_country(digits):
            return start + len(written)
        gap = re.search(r"[ .\-/()]+[0-9]+\Z", written[-14:])
        if gap is None or len(digits) < 8:
            return 0
        written = written[: len(written) - len(gap[0])]


def _fits_its_country(digits: str) -> bool:
    for size in (1, 2, 3):
        limits = _NATIONAL_DIGITS.get(digits[:size])
        if limits:
            national = digits[size:]
            if digits[0] == "1" and (national[:1] in "01" or national[3:4] in ("0", "1")):
                return False
            return limits[0] <= len(national) <= limits[1]
    return bool(_OTHER_CODES.match(digits)) and 7 <= len(digits) - 3 <= 12


def _shaped(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    """Yield numbers in the grouping of a country."""
    for match in _NORTH_AMERICAN.finditer(text, begin, stop):
        before = text_before(text, match.start())
        if match[1] == " " and (_LIST_BEFORE.search(before) or _LIST_AFTER.match(text, match.end())):
            continue
        if not numbers_a_thing(before):
            yield match.span()
    for match in _TRUNK.finditer(text, begin, stop):
        if _is_trunk_number(match, text_before(text, match.start())):
            yield match.span()
    for match in _HOTLINE.finditer(text, begin, stop):
        if len(match[0]) >= len("400-810-123"):
            yield match.span()


def _is_trunk_number(match: re.Match[str], before: str) -> bool:
    written = match[0]
    groups = re.findall("[0-9]+", written)
    if not 9 <= sum(map(len, groups)) <= 12 or _DATE.match(written) or numbers_a_thing(before):
        return False
    if _ZIP_CODE.fullmatch(written) and not _LABEL.is_in(before):
        return False
    if len(groups) == 1:  # no gap at all: nothing tells it from the number of anything
        return False
    pairs = match[1] is not None
    return not pairs or (sum(group[0] == "0" for group in groups) < 3 and (match[1] != " " or _LABEL.is_in(before)))


def _announced(text: str, start: int) -> Iterator[Offsets]:
    """Yield the number that follows a word such as phone, whatever its grouping."""
    match = _ANNOUNCED_NUMBER.match(text, start)
    if match and not _DATE.match(match[0]) and _ANNOUNCER.is_in(text_before(text, start)):
        yield match.span()
