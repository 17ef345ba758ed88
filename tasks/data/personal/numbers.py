"""Chinese identity numbers and bank cards, which check digits tell from other long numbers."""

import re
from collections.abc import Iterator
from datetime import date

import regex

from tasks.data.personal.signs import Hint
from tasks.data.personal.spans import Offsets, without_overlaps

STANDS_ALONE = r"(?<![0-9A-Za-z_])(?<![0-9][.\-])"
"""No letter or digit before it, and no digit with a point or a hyphen: it is no part of a longer number or name."""
ENDS_ALONE = r"(?![0-9A-Za-z_])(?![.\-][0-9])"

# Not `re`: until Python 3.11.5 its possessive quantifiers are wrong around groups (cpython#106052).
_RUN = regex.compile(r"[0-9](?:[ ().\-/+]{0,3}[0-9]){6,}+")
_DATE_OR_FRACTION = re.compile(
    r"[0-9]{0,4}\.[0-9]+|(?:19|20)[0-9]{2}([\-/.])[01]?[0-9]\1[0-3]?[0-9](?: [012]?[0-9])?"
    r"|[0-3]?[0-9]([\-/.])[0-3]?[0-9]\2(?:19|20)[0-9]{2}"
    r"|(?:19|20)[0-9]{2} ?[\-/] ?(?:19|20)[0-9]{2}"
)
_EDGE_BEFORE_CHARS = 8
_EDGE_AFTER_CHARS = 16

_PROVINCE_CODES = (
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83"
)
_PROVINCES = frozenset(_PROVINCE_CODES.split())  # GB/T 2260
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999
_ID_CHECKS = "10X98765432"
_ID = re.compile(
    STANDS_ALONE + r"[1-8][0-9]{5}([ \-]?)(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\1[0-9]{3}[0-9Xx]"
    r"(?![0-9A-Za-z_])(?![.\-][0-9])"
)
_OLD_ID = re.compile(STANDS_ALONE + r"[1-8][0-9]{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}" + ENDS_ALONE)
_ID_CONTEXT = re.compile(
    r"(?:身份证|证件|公民身份|居民证|identity|\bid (?:card|no|number)|citizen)[^0-9\n]{0,8}\Z", re.IGNORECASE
)
CONTEXT_CHARS = 32

_CARD = re.compile(
    STANDS_ALONE + r"(?:[2-6][0-9]{12,18}"
    r"|[2-6][0-9]{3}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?"
    r"|3[0-9]{3}([ \-])[0-9]{6}\2[0-9]{4,5}"
    r"|6[0-9]{5}([ \-])[0-9]{7,13})" + ENDS_ALONE
)
_CARD_CONTEXT = re.compile(r"card|visa|卡", re.IGNORECASE)
_SHORTEST_CARD_IN_USE = 14

_NOT_PERSONAL = Hint(
    r"(?i)(?:order|invoice|tracking|parcel|shipment|serial|sku|isbn|issn|ean|upc|barcode|imei|uuid|timestamp|epoch|\bts|"
    r"(?:\b|_)(?:u|order|item|user|row|trace|request|transaction|batch)?[ _]?id|"
    r"\bpart|\blot|\bbatch|ticket|\bref(?:erence)?|"
    r"\bport|offset|\bsize|count|\bseed|version|amount|balance|total|population|nonce|\bbuild|model|patent|doi|pmid|"
    r"订单|单号|运单|快递|物流|流水|编号|序列|货号|型号|批号|发票|条形码|条码|时间戳|案号|合同|金额|余额|人口|总数|文号|专利)"
    r"[\"']?[ :：=#为是]{0,3}(?:no\.?|num(?:ber)?|code|号码?|id|is|was)?[\"' :：=#为是]{0,4}$"
)


def number_runs(text: str) -> list[Offsets]:
    """Return the pieces of text in which a number of seven digits or more may stand, from its first digit to its last.

    Dates, times and decimal fractions are left out.
    """
    return [match.span() for match in _RUN.finditer(text) if not _DATE_OR_FRACTION.fullmatch(match[0])]


def with_edges(run: Offsets) -> Offsets:
    """Return the piece of text that a rule must see for a run: what may be a part of its numbers, or must not be."""
    return max(0, run[0] - _EDGE_BEFORE_CHARS), run[1] + _EDGE_AFTER_CHARS


def find_china_ids(text: str, runs: list[Offsets]) -> list[Offsets]:
    """Find identity numbers of 18 characters whose region, date of birth and check digit are right.

    Where the text before it says that it is one, the check digit may be wrong: it was mistyped, or somebody changed it
    a little. The form of 15 digits, given out until 1999, has no check digit: it counts only there.
    """
    found: list[Offsets] = []
    for begin, stop in map(with_edges, runs):
        for match in _ID.finditer(text, begin, stop):
            number = re.sub("[ -]", "", match[0])
            if _has_region_and_date(number) and (_has_right_check(number) or _is_announced(text, match.start())):
                found.append(match.span())
        found += _old_china_ids(text, begin, stop)
    return without_overlaps(found)


def find_bank_cards(text: str, runs: list[Offsets]) -> list[Offsets]:
    """Find card numbers of 13 to 19 digits with the prefix of an issuer, its length and a right check digit (Luhn).

    Cards of 13 digits have not been given out for long, and barcodes have as many: they count after the word card.
    """
    found: list[Offsets] = []
    for begin, stop in map(with_edges, runs):
        for match in _CARD.finditer(text, begin, stop):
            digits = re.sub("[ -]", "", match[0])
            if (
                _has_issuer(digits)
                and _passes_luhn(digits)
                and _may_be_a_card(text_before(text, match.start()), digits)
            ):
                found.append(match.span())
    return found


def text_before(text: str, start: int) -> str:
    """Return the text before an offset that may say what kind of number follows."""
    return text[max(0, start - CONTEXT_CHARS) : start]


def numbers_a_thing(before: str) -> bool:
    """Tell whether the text before a number says that it is the number of an order, a product, a file."""
    return _NOT_PERSONAL.is_in(before)


def _may_be_a_card(before: str, digits: str) -> bool:
    if len(digits) < _SHORTEST_CARD_IN_USE and not _CARD_CONTEXT.search(before):
        return False
    return not numbers_a_thing(before)


def _old_china_ids(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    for match in _OLD_ID.finditer(text, begin, stop):
        number = match[0]
        if number[:2] in _PROVINCES and _is_date("19" + number[6:12]) and _is_announced(text, match.start()):
            yield match.span()


def _is_announced(text: str, start: int) -> bool:
    return _ID_CONTEXT.search(text_before(text, start)) is not None


def _has_region_and_date(number: str) -> bool:
    return number[:2] in _PROVINCES and _is_date(number[6:14])


def _has_right_check(number: str) -> bool:
    total = sum(int(digit) * weight for digit, weight in zip(number, _ID_WEIGHTS, strict=False))
    return _ID_CHECKS[total % 11] == number[17].upper()


def _is_date(digits: str) -> bool:
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return True


def _passes_luhn(digits: str) -> bool:
    """Tell whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    total = sum(map(int, digits[-1::-2]))
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])) % 10 == 0


def _has_issuer(digits: str) -> bool:
    """Tell whether prefix and length are those of a card scheme."""
    size, two, three, four = len(digits), digits[:2], digits[:3], int(digits[:4])
    if digits[0] == "4":  # Visa
        return size in (13, 16, 19)
    if two == "62":  # UnionPay
        return 16 <= size <= 19
    if "51" <= two <= "55" or 2221 <= four <= 2720 or 2200 <= four <= 2204:  # Mastercard, Mir
        return size == 16
    if two in ("34", "37"):  # American Express
        return size == 15
    if 3528 <= four <= 3589 or four == 6011 or two == "65" or "644" <= three <= "649":  # JCB, Discover
        return 16 <= size <= 19
    if two in ("36", "38", "39") or "300" <= three <= "305":  # Diners Club
        return 14 <= size <= 19
    # Maestro
    return four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763) and size in (16, 18, 19)
