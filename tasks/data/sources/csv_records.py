"""Records of a CSV or TSV file: the header names the fields, every value is text.

A formula (`=cmd|…`) is text like any other: nothing here evaluates it. Quotes are read strictly. Where they are broken,
the line the record began with is set aside and reading goes on with the next, so one stray quote costs one line.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO

from tasks.data.shown import shown_name
from tasks.data.sources.json_lines import bounded_lines
from tasks.data.sources.shard import EXCERPT_CHARS, MAX_RECORD_BYTES, BrokenFile, Malformed, excerpt_of

BROKEN_QUOTES = "broken quotes"
WRONG_FIELDS = "wrong number of fields"
NO_HEADER = "no usable header"

MAX_RECORD_LINES = 20_000
"""A record of more lines has lost its closing quote."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_csv_records(
    stream: BinaryIO, delimiter: str, encoding_name: str
) -> Iterator[tuple[int, dict[str, Any] | Malformed]]:
    """Yield the line a record begins at, and the record or why it is none.

    Args:
        stream: the file as UTF-8.
        delimiter: a comma or a tab.
        encoding_name: what the file was encoded in, for people.

    Raises:
        BrokenFile: there is no header, or it names a field twice.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # of the whole process; Python's default is shorter than a long answer
    lines = _Lines(stream, encoding_name)
    header: list[str] | None = None
    while True:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                number = lines.first
                lines.forget()
                if not fields:
                    continue
                if header is None:
                    header = _checked_header(fields)
                elif len(fields) == len(header):
                    yield number, dict(zip(header, fields, strict=True))
                else:
                    detail = f"{len(fields)} fields, the header has {len(header)}"
                    yield number, Malformed(WRONG_FIELDS, detail, delimiter.join(fields).strip()[:EXCERPT_CHARS])
            break
        except _NoText as problem:
            yield lines.first, problem.malformed
            lines.forget()
        except (csv.Error, _NotClosed) as error:
            yield lines.first, lines.set_first_aside(str(error))
    if header is None:
        raise BrokenFile(NO_HEADER, "the file has no line")


def _checked_header(fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not any(names):
        problem = f"names {', '.join(map(shown_name, twice))} twice" if twice else "is blank"
        raise BrokenFile(NO_HEADER, f"the first line {problem}; expected one name for each field")
    return names


class _NoText(Exception):
    def __init__(self, malformed: Malformed) -> None:
        super().__init__(malformed.reason)
        self.malformed = malformed


class _NotClosed(Exception):
    pass


class _Lines:
    """Decoded lines for `csv.reader`; those of the record it is in the middle of can be read again.

    Each line is read at most twice: from inside a quote that is never closed, and then by itself. A line that does not
    close a quote it is inside of does not leave one open either.
    """

    def __init__(self, stream: BinaryIO, encoding_name: str) -> None:
        self._lines = bounded_lines(stream)
        self._encoding_name = encoding_name
        self._again: deque[str | Malformed] = deque()
        self._taken: list[str] = []
        self._taken_chars = 0
        self._no_text = 0
        self.first = 1
        """Number of the line at which the record that is being read begins."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._decoded(next(self._lines))
        if isinstance(line, Malformed):
            if self._taken:
                self._again.appendleft(line)
                raise _NotClosed("a quote is not closed before a line that is no text")
            self._no_text = 1
            raise _NoText(line)
        self._taken.append(line)
        self._taken_chars += len(line)
        if self._taken_chars > MAX_RECORD_BYTES or len(self._taken) > MAX_RECORD_LINES:
            raise _NotClosed(f"a quote is not closed within {len(self._taken):,} lines")
        return line

    def forget(self) -> None:
        """Start the next record."""
        self.first += len(self._taken) + self._no_text
        self._taken.clear()
        self._taken_chars = self._no_text = 0

    def set_first_aside(self, detail: str) -> Malformed:
        """Return the line the record began with, and start the next record at the line after it."""
        first, *rest = self._taken
        self._again.extendleft(reversed(rest))
        self._taken = [first]
        self.forget()
        return Malformed(BROKEN_QUOTES, detail, first.strip()[:EXCERPT_CHARS])

    def _decoded(self, line: bytes | Malformed) -> str | Malformed:
        if isinstance(line, Malformed):
            return line
        try:
            return (line.removeprefix(_BYTE_ORDER_MARK) if self.first == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            detail = f"byte {error.start + 1} of the line is no {self._encoding_name}"
            return Malformed(f"not {self._encoding_name}", detail, excerpt_of(line))
