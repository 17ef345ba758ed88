"""Rows from a JSONL file: what is malformed is set aside with its line number, the rest goes on."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.contracts.config import JsonlSource
from tasks.contracts.errors import DataError
from tasks.contracts.jsonl import digest_of_file
from tasks.data.rows import NOT_A_ROW, Rejection, Row, UnusableRow, build_row, messages_of

_EXCERPT_CHARS = 2_000
_NAMED_LINES = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def fingerprint(source: JsonlSource, config_key: str) -> str:
    """Return the sha256 of the file's bytes.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    with _readable(source, config_key):
        return digest_of_file(Path(source.path))


def read_rows(
    source: JsonlSource, expected_digest: str, max_malformed_share: float, config_key: str
) -> Iterator[Row | Rejection]:
    """Yield a row or a rejection for every line that is not blank.

    Args:
        source: the file and the slice its rows belong to.
        expected_digest: its fingerprint; the result is stored under it.
        max_malformed_share: malformed lines in all lines that are not blank, 0 to 1.
        config_key: where the source stands in the configuration.

    Raises:
        DataError: the file is missing or unreadable, too many lines are malformed, or it changed meanwhile.
    """
    lines = malformed = 0
    first: list[Rejection] = []
    digest = hashlib.sha256()
    with _readable(source, config_key), Path(source.path).open("rb") as file:
        for number, line in enumerate(file, 1):  # bytes: text mode would stop at the first bad one
            digest.update(line)
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.strip():
                continue
            lines += 1
            result = _row_of(line, number, source)
            if isinstance(result, Rejection):
                malformed += 1
                if len(first) < _NAMED_LINES:
                    first.append(result)
            yield result
    if digest.hexdigest() != expected_digest:
        raise DataError(f"{config_key} names {source.path!r}, which changed while it was read; run again")
    if malformed > max_malformed_share * lines:
        named = "; ".join(f"{bad.source}:{bad.line}: {bad.reason} ({bad.detail})" for bad in first)
        raise DataError(
            f"{config_key} names {source.path!r}, in which {malformed} of {lines} lines are malformed, more than the "
            f"share of {max_malformed_share} that data.max_malformed_share allows; the first: {named}"
        )


def _row_of(line: bytes, number: int, source: JsonlSource) -> Row | Rejection:
    name = Path(source.path).name
    try:
        return build_row(messages_of(json.loads(line.decode("utf-8"))), name, source.slice)
    except UnicodeDecodeError as error:
        reason, detail = "not UTF-8", f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
    except UnusableRow as error:
        reason, detail = NOT_A_ROW, str(error)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and very deep nesting
        reason, detail = "not JSON", str(error)
    excerpt = line.decode("utf-8", errors="replace").strip()[:_EXCERPT_CHARS]
    return Rejection(reason, detail, name, number, excerpt)


@contextmanager
def _readable(source: JsonlSource, config_key: str) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    path = Path(source.path)
    try:
        if "\0" in source.path or (path.exists() and not path.is_file()):
            raise DataError(f"{config_key} names {source.path!r}, which is not a file; expected a JSONL file")
        yield
    except FileNotFoundError as error:
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise DataError(
            f"{config_key} names {source.path!r}, which does not exist{where}; expected a JSONL file"
        ) from error
    except OSError as error:
        raise DataError(
            f"{config_key} names {source.path!r}, which cannot be read ({os.strerror(error.errno or 0)}); "
            "expected a readable JSONL file"
        ) from error
