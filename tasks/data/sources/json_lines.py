"""JSON lines: each is parsed or set aside, and one that is too long is passed over without being held."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import orjson

from tasks.data.sources.shard import MAX_RECORD_BYTES, Malformed, excerpt_of

NOT_JSON = "not JSON"
TOO_LONG = "record too long"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def bounded_lines(stream: BinaryIO, stop: int | None = None) -> Iterator[bytes | Malformed]:
    """Yield the lines of `stream`, which stands at the start of a line, with their line feeds.

    Args:
        stream: an open file.
        stop: position at which the last line ends; None for the end of the file.
    """
    left = stop - stream.tell() if stop is not None else None
    for line in iter(partial(stream.readline, MAX_RECORD_BYTES + 1), b""):
        bytes_read = len(line)
        if bytes_read <= MAX_RECORD_BYTES or line.endswith(b"\n"):
            yield line
        else:
            excerpt = excerpt_of(line)
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_RECORD_BYTES)
                bytes_read += len(line)
            yield Malformed(TOO_LONG, f"{bytes_read:,} bytes, at most {MAX_RECORD_BYTES:,} are read", excerpt)
        if left is not None:
            left -= bytes_read
            if left <= 0:
                return


def read_json_lines(
    stream: BinaryIO, stop: int | None, encoding: str, first_line: int
) -> Iterator[tuple[int, Any | Malformed]]:
    """Yield line number and record, or why it is none, of every line that is not blank.

    Args:
        stream: an open file, at the start of a line.
        stop: position at which the last line ends; None for the end of the file.
        encoding: of the lines.
        first_line: number of the first line.
    """
    loads = orjson.loads
    utf8 = encoding == "utf-8"
    for number, line in enumerate(bounded_lines(stream, stop), first_line):
        if line == b"\n":
            continue
        if isinstance(line, Malformed):
            yield number, line
            continue
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            yield number, loads(line if utf8 else line.decode(encoding))
        except ValueError:
            if line.strip():
                yield number, parse_slowly(line, encoding)


def parse_slowly(piece: bytes, encoding: str = "utf-8") -> Any | Malformed:
    """Parse what orjson refuses: NaN and half surrogates pass here, and what is wrong with the rest is named."""
    try:
        return json.loads(piece.decode(encoding).removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        name = {"utf-8": "UTF-8", "gb18030": "GB18030"}.get(encoding, encoding)
        detail = f"byte {error.start + 1} of the line is 0x{piece[error.start]:02x}"
        return Malformed(f"not {name}", detail, excerpt_of(piece))
    except json.JSONDecodeError as error:  # its own "line 1" would be taken for the line of the file
        return Malformed(NOT_JSON, f"{error.msg} at character {error.pos + 1}", excerpt_of(piece))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and very deep nesting
        return Malformed(NOT_JSON, str(error), excerpt_of(piece))
