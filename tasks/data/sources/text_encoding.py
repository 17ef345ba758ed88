"""Which encoding a file of text has: by its mark, by where its NULs stand, or by which encoding its bytes fit.

GB18030 takes almost any bytes, so it is chosen only where next to no line is UTF-8 and nearly all of
its characters are pairs of GB2312, the characters in daily use. (Text in EUC-KR has the same pairs: name its encoding.)
"""

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\xfe]")
_GB2312_PAIR = re.compile(rb"[\xa1-\xf7][\xa1-\xfe]")
_DAILY_SHARE = 0.9
SAMPLE_BYTES = 2**18


class EncodingSample:
    """What the encoding is judged by: the beginning of a file, and the first lines with other bytes than ASCII."""

    def __init__(self) -> None:
        self.head = b""
        self._lines = b""

    @property
    def complete(self) -> bool:
        """Whether more of the file would change nothing."""
        return len(self._lines) >= SAMPLE_BYTES

    def add(self, block: bytes) -> None:
        """Look at the next block of the file."""
        if not self.head:
            self.head = block[:4_096]
        if self.complete or block.isascii():
            return
        first = _NOT_ASCII.search(block)
        assert first is not None
        # The block may begin inside a character, and the line may begin in the block before: from a line's start on.
        start = block.rfind(b"\n", 0, first.start()) + 1
        piece = block[start : start + SAMPLE_BYTES]
        self._lines += piece[: piece.rfind(b"\n") + 1] or piece + b"\n"

    def encoding(self) -> str:
        """Return the name of the encoding; UTF-8 where nothing speaks against it."""
        for mark, name in _MARKS:
            if self.head.startswith(mark):
                return name
        return _utf16_without_mark(self.head) or ("gb18030" if _is_gb18030(self._lines) else "utf-8")


def needs_transcoding(encoding: str) -> bool:
    """Whether lines of this encoding do not end at the byte 0x0A."""
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def is_utf8(encoding: str) -> bool:
    """Whether text of this encoding is UTF-8 as it stands."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def _utf16_without_mark(head: bytes) -> str | None:
    """Recognise text that is mostly ASCII in UTF-16: every other byte is NUL."""
    pairs = len(head) // 2
    if pairs < 2:
        return None
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    # JSON and CSV begin with ASCII, and a text that is not mostly ASCII is not plain enough to be guessed.
    if odd >= 0.4 * pairs and even <= 0.02 * pairs and head[1] == 0:
        return "utf-16-le"
    if even >= 0.4 * pairs and odd <= 0.02 * pairs and head[0] == 0:
        return "utf-16-be"
    return None


def _is_gb18030(sample: bytes) -> bool:
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    # A short line of GB18030 can be UTF-8 by chance.
    if not lines or sum(_decodes(line, "utf-8") for line in lines) > (1 - _DAILY_SHARE) * len(lines):
        return False
    fitting = [line for line in lines if _decodes(line, "gb18030")]
    pairs = sum(len(_PAIR.findall(line)) for line in fitting)
    daily = sum(len(_GB2312_PAIR.findall(line)) for line in fitting)
    return len(fitting) >= _DAILY_SHARE * len(lines) and daily >= _DAILY_SHARE * pairs > 0


def _decodes(line: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        decoder.decode(line)  # not final: a sample of one very long line may end inside a character
    except UnicodeDecodeError:
        return False
    return True
