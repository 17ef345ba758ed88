"""A key in what an endpoint says, however it is escaped there."""

import re
from html.entities import html5
from itertools import groupby

_HTML_NAMES: dict[str, list[str]] = {}
for _name, _character in html5.items():
    _HTML_NAMES.setdefault(_character, []).append(_name.removesuffix(";"))
# Numbers have bounds, and runs of backslashes give nothing back (`+`), so that no text takes long to search.
_PERCENT = r"%(?:25){0,4}"
_ENTITY = r"&(?:amp;){0,4}"
_BACKSLASH = rf"(?:\\(?i:u005c|x5c)?+|{_PERCENT}5[Cc]|{_ENTITY}(?:#92|#[xX]5[cC]|bsol);)"


def spellings_of(key: str) -> re.Pattern[str]:
    """Return what finds a key of printable ASCII as it is, and as JSON, addresses, HTML and Python escape it.

    Each character may be escaped or not by itself, since encoders differ in what they escape (`=` is `\\u003d` to some
    and stays to others), and escapes may be escaped again. Other encodings of the whole key, as base64, are not found.
    """
    runs = [(is_backslash, "".join(run)) for is_backslash, run in groupby(key, "\\".__eq__)]
    escaped = (
        f"{_BACKSLASH}{{{len(run)},{16 * len(run)}}}+" if is_backslash else "".join(map(_spellings, run))
        for is_backslash, run in runs
    )
    return re.compile(f"{re.escape(key)}|{''.join(escaped)}")


def _spellings(character: str) -> str:
    code = ord(character)
    numbered = rf"#0{{0,4}}{code}|#[xX]0{{0,4}}(?i:{code:x})"
    return (
        rf"{_BACKSLASH}{{0,16}}+(?:{re.escape(character)}|(?i:u00{code:02x}|x{code:02x})"
        rf"|{_PERCENT}(?i:{code:02x})|{_ENTITY}(?:{'|'.join([numbered, *_HTML_NAMES.get(character, ())])});)"
    )
