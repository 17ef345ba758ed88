"""Records of a JSON document, a list of objects or an object that holds one, streamed one at a time.

Only brackets and strings are followed; each record found between them is then parsed by itself. So a broken record is
set aside alone, a record that is too long is never held whole, and deep nesting is a counter.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson
import regex

from tasks.data.sources.json_lines import NOT_JSON, TOO_LONG, parse_slowly
from tasks.data.sources.shard import EXCERPT_CHARS, MAX_RECORD_BYTES, Malformed, excerpt_of

_BLOCK_BYTES = 2**18
_EXCERPT_BYTES = 4 * EXCERPT_CHARS  # a character has up to four
# Possessive quantifiers never step back, so hostile text costs one pass. Those of `re` are wrong around groups until
# Python 3.11.5 (cpython#106052).
_PLAIN = regex.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', regex.DOTALL)
_STRING_BODY = regex.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', regex.DOTALL)
_QUOTE, _OPEN_LIST, _OPEN_OBJECT = b'"'[0], b"["[0], b"{"[0]
_OPENING = (_OPEN_LIST, _OPEN_OBJECT)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json_records(stream: BinaryIO) -> Iterator[tuple[int, Any | Malformed]]:
    """Yield number (from 1) and record, or why it is none, of each element of the document's list."""
    for number, piece in enumerate(_Splitter(stream).pieces(), 1):
        if isinstance(piece, Malformed):
            yield number, piece
            continue
        try:
            yield number, orjson.loads(piece)
        except ValueError:
            yield number, parse_slowly(piece)


class _Splitter:
    """Follows the nesting of one document; `level` is the depth at which its records stand (1 or 2)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0  # everything before it is understood
        self._depth = 0
        self._level = 0  # 0 until the first bracket
        self._in_string = False
        self._record_start: int | None = None
        self._oversize: Malformed | None = None
        self._between = b""  # what stands between two records, or before the first, as far as it is kept
        self._records = 0
        self._in_list = False
        self._lists = 0
        self._closed = False  # the document has ended

    def pieces(self) -> Iterator[bytes | Malformed]:
        """Yield the bytes of each record, and what stands where a record was expected."""
        while self._refill():
            yield from self._understood()
        if self._record_start is not None or self._oversize is not None or self._depth or self._in_string:
            rest = self._buffer[self._record_start or 0 :]
            yield Malformed(NOT_JSON, "the document ends before its last bracket is closed", excerpt_of(rest))
        elif not self._level:
            yield Malformed(NOT_JSON, "expected a list of records, or an object with one", excerpt_of(self._between))
        elif self._between.strip():
            yield Malformed(NOT_JSON, "something stands after the document", excerpt_of(self._between))
        elif self._level == 2 and not self._lists:
            yield Malformed(NOT_JSON, "expected a list of records, or an object with one; found an object without")

    def _refill(self) -> bool:
        if self._record_start is not None and len(self._buffer) - self._record_start > MAX_RECORD_BYTES:
            excerpt = excerpt_of(self._buffer[self._record_start :])
            self._oversize = Malformed(TOO_LONG, f"more than {MAX_RECORD_BYTES:,} bytes are not read", excerpt)
            self._record_start = None
        keep = self._at if self._record_start is None else self._record_start
        block = self._stream.read(_BLOCK_BYTES)
        if not block:
            return False
        self._buffer = self._buffer[keep:] + block
        self._at -= keep
        if self._record_start is not None:
            self._record_start = 0
        return True

    def _understood(self) -> Iterator[bytes | Malformed]:
        """Go on to the end of the buffer."""
        if not self._level:
            self._buffer = self._buffer.removeprefix(_BYTE_ORDER_MARK)
        while self._at < len(self._buffer):
            if self._in_string:
                end = _string_end(self._buffer, self._at)
                if end == len(self._buffer) or self._buffer[end] != _QUOTE:  # a backslash whose letter is yet to come
                    self._pass_to(end)
                    return
                self._in_string = False
                self._pass_to(end + 1)
                continue
            if 0 < self._level < self._depth:
                self._pass_through()
                if self._at < len(self._buffer) and not self._in_string:
                    yield from self._close()
                continue
            plain = _PLAIN.match(self._buffer, self._at)
            assert plain is not None
            self._pass_to(plain.end())
            if self._at == len(self._buffer):
                return
            bracket = self._buffer[self._at]
            if bracket == _QUOTE:
                self._in_string = True
                self._pass_to(self._at + 1)
            elif bracket in _OPENING:
                yield from self._open(bracket)
            else:
                yield from self._close()

    def _pass_through(self) -> None:
        """Go on inside a record, to the bracket that closes it: the one loop that runs for every bracket."""
        buffer, at, depth, last = self._buffer, self._at, self._depth, self._level + 1
        size, plain = len(buffer), _PLAIN.match
        while True:
            passed = plain(buffer, at)
            assert passed is not None
            at = passed.end()
            if at == size:
                break
            character = buffer[at]
            if character == _QUOTE:
                self._in_string = True
                at += 1
                break
            if character in _OPENING:
                depth += 1
            elif depth == last:
                break
            else:
                depth -= 1
            at += 1
        self._at, self._depth = at, depth

    def _pass_to(self, end: int) -> None:
        """Move on; what is passed between records is kept as far as an excerpt of it is wanted."""
        between = self._depth == 0 or (self._depth == self._level and self._in_list)
        if between and len(self._between) < _EXCERPT_BYTES:
            passed = self._buffer[self._at : end]
            self._between += (passed if self._between else passed.lstrip())[:_EXCERPT_BYTES]
        self._at = end

    def _open(self, bracket: int) -> Iterator[bytes | Malformed]:
        if self._closed:
            self._between += b"["  # something stands after the document
            self._at += 1
            return
        if not self._level:
            if self._between.strip():
                yield Malformed(NOT_JSON, "something stands before the document", excerpt_of(self._between))
            self._level = 1 if bracket == _OPEN_LIST else 2
            self._in_list = bracket == _OPEN_LIST
            self._between = b""
        elif self._level == 2 and self._depth == 1:
            self._in_list, self._between, self._records = bracket == _OPEN_LIST, b"", 0
        elif self._depth == self._level and self._in_list:
            yield from self._unexpected(first=self._records == 0)
            if self._level == 2 and self._records == 0:
                self._lists += 1
                if self._lists == 2:
                    yield Malformed(NOT_JSON, "a second list of records in one document; expected one")
            self._records += 1
            if self._lists < 2:
                self._record_start = self._at
        self._depth += 1
        self._at += 1

    def _close(self) -> Iterator[bytes | Malformed]:
        self._at += 1
        if self._depth == 0:
            self._between += b"]"  # before the document, or after it
            return
        self._depth -= 1
        if self._depth == self._level:
            if self._oversize is not None:
                yield self._oversize
                self._oversize = None
            elif self._record_start is not None:
                record = self._buffer[self._record_start : self._at]
                self._record_start = None
                yield record
        elif self._depth == self._level - 1 and self._in_list:
            # In an object, other lists than that of the records are nobody's concern.
            if self._level == 1 or self._records:
                yield from self._unexpected(first=True)
            elif not self._lists and not self._between.strip():
                self._lists += 1  # an empty list of records
            self._in_list = False
        if self._depth == 0:
            self._closed, self._between = True, b""

    def _unexpected(self, first: bool) -> Iterator[Malformed]:
        """Set aside what is no record where one was expected: between two stands a comma."""
        between, self._between = self._between.strip(), b""
        if between != (b"" if first else b","):
            detail = "expected an object after a comma" if not first else "expected an object"
            yield Malformed(NOT_JSON, detail, excerpt_of(between))


def _string_end(buffer: bytes, start: int) -> int:
    body = _STRING_BODY.match(buffer, start)
    assert body is not None
    end: int = body.end()
    return end
