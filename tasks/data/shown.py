"""What of a source may stand in a sentence: terminals, logs and Prefect keep sentences, and values may be personal.

Names of columns help people and are shown. The first line of a table without a header looks like names, too, so only
what reads as a name is; of the rest the length is said.
"""

import re

_NAME = re.compile(r"[\w .:/#%&$()\[\]+-]{1,40}")
_MAX_DIGITS = 4
"""A name may have a year; a telephone number has more, however it is divided."""
_MAX_WORDS = 5

_QUOTED = re.compile(r"(?<!\w)b?(?P<mark>['\"`])(?P<inside>.*?)(?P=mark)(?!\w)", re.DOTALL)
_WORD = re.compile(r"\S+")
_MAX_CHARS = 300


def shown_name(name: str, what: str = "name") -> str:
    """Quote `name` if it reads as the name of a field, else say how long it is.

    Args:
        name: of a field, or what stands where one of a few words is expected.
        what: it is called if it is not shown.
    """
    return repr(name) if _reads_as_name(name) else f"a {what} of {len(name)} characters"


def without_values(message: str, names: bool) -> str:
    """Return what a library says, in one line of at most 300 characters, without the values that it may quote.

    Args:
        message: of an exception.
        names: what it quotes may be names of columns, which are shown; else nothing that it quotes is.
    """

    def judged(quoted: re.Match[str]) -> str:
        inside = quoted["inside"]
        return quoted[0] if names and _reads_as_name(inside) else f"<{len(inside)} characters>"

    line = " ".join(_QUOTED.sub(judged, message[:2_000]).split())
    shown = _WORD.sub(lambda word: word[0] if _has_few_digits(word[0]) and "@" not in word[0] else "<…>", line)
    return shown if len(shown) <= _MAX_CHARS else shown[: _MAX_CHARS - 3] + "..."


def _reads_as_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and _has_few_digits(text) and len(text.split()) <= _MAX_WORDS


def _has_few_digits(text: str) -> bool:
    return sum(map(str.isdigit, text)) <= _MAX_DIGITS
