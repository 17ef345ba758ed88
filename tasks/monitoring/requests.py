"""What users asked recently, and what the champion was trained on: user text only, both read by the same rule."""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from tasks.contracts.config import MonitorConfig
from tasks.contracts.engine import GOLDEN_REQUEST_ID
from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.jsonl import read_jsonl

_BLOCK_BYTES = 64 * 1024
_MAX_LINE_BYTES = 4 * 1024 * 1024
_TOO_LONG = b"\0"  # no JSON holds this byte, so a line that was cut short is malformed and cannot be mistaken


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        text: what the user wrote, all turns.
        time_seconds: when it was logged, in seconds since the epoch; the file's own time if its line names none.
    """

    text: str
    time_seconds: float


@dataclass(frozen=True)
class RequestWindow:
    """The most recent requests of one source, oldest first.

    Attributes:
        source: the file they were read from.
        requests: the requests.
        malformed_lines: lines passed over on the way because they hold no request that can be read.
    """

    source: Path
    requests: tuple[Request, ...]
    malformed_lines: int

    @property
    def last_time_seconds(self) -> float:
        """When the latest request was logged; never in the future, whatever a clock in the log says."""
        return min(max(request.time_seconds for request in self.requests), time.time())


def request_source(config: MonitorConfig, home: Home) -> Path:
    """Return the file that requests are read from: the one named, else the request log of the served model."""
    if config.requests_path:
        return Path(config.requests_path).expanduser().resolve()
    return home.request_log(config.serving.model_name)


def read_recent_requests(config: MonitorConfig, home: Home, judged_until_seconds: float = -math.inf) -> RequestWindow:
    """Read the last `window_requests` requests, from the end of the file backwards.

    Golden prompts, which a roll-out sends through the router, are passed over: nobody asked them. A line is one of the
    router's log, or any object with `messages`, `text_input`, or `instruction` and `input`.
    Requests that failed count too: the user asked. So do those that an earlier version answered: drift is a property
    of what people ask, whoever answers.

    Args:
        config: names the source and the window.
        home: holds the request log.
        judged_until_seconds: reading stops at a request of this time or earlier (seconds since the epoch).

    Raises:
        DataError: a file named by `requests_path` is missing or cannot be read. A log that does not exist yet is
            merely empty.
    """
    source = request_source(config, home)
    if not source.is_file() and not config.requests_path:
        return RequestWindow(source, (), 0)
    try:
        if not source.is_file():
            raise FileNotFoundError("no such file")
        with source.open("rb") as file:
            return _read_window(file, source, config.window_requests, judged_until_seconds)
    except OSError as error:
        key = f"requests_path is {config.requests_path!r}" if config.requests_path else f"the request log is {source}"
        raise DataError(f"{key}, which cannot be read ({error.strerror or error}); expected a JSONL file") from error


def read_training_prompts(dataset_path: Path) -> list[str]:
    """Read the user text of every training row of a data set.

    Raises:
        DataError: the data set has no readable `train.jsonl`.
    """
    path = dataset_path / "train.jsonl"
    try:
        texts = (user_text(row) for row in read_jsonl(path))
        return [text for text in texts if text is not None]
    except (OSError, ValueError) as error:
        raise DataError(
            f"the champion's training rows at {path} cannot be read ({error}); "
            "expected the data set its version names: restore the state directory (LLM_RETRAIN_HOME) or retrain"
        ) from error


def user_text(record: Any) -> str | None:
    """Return what the user wrote in a log line, request or row; None if it holds no user text."""
    if not isinstance(record, dict):
        return None
    if "messages" in record:
        parts = _user_turns(record["messages"])
    elif "text_input" in record:
        parts = [record["text_input"]]
    else:
        parts = [record.get("instruction"), record.get("input") or ""]
    if not parts or not all(isinstance(part, str) for part in parts):
        return None
    # JSON can spell half a surrogate pair, which no file or database takes.
    return "\n\n".join(parts).strip().encode("utf-8", errors="replace").decode("utf-8") or None


def _user_turns(messages: Any) -> list[Any]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return []
    return [message.get("content") for message in messages if message.get("role") == "user"]


def _read_window(file: BinaryIO, source: Path, window_requests: int, judged_until_seconds: float) -> RequestWindow:
    file_time = os.fstat(file.fileno()).st_mtime
    requests: list[Request] = []
    malformed = 0
    for line in _lines_from_end(file):
        if not line.strip():
            continue
        record = _record(line)
        if record is not None and record.get("id") == GOLDEN_REQUEST_ID:
            continue
        request = _request(record, file_time)
        if request is None:
            malformed += 1
            continue
        # The log is appended in order of time: everything before this line was judged too.
        if request.time_seconds <= judged_until_seconds:
            break
        requests.append(request)
        if len(requests) == window_requests:
            break
    return RequestWindow(source, tuple(reversed(requests)), malformed)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _request(record: dict[str, Any] | None, file_time_seconds: float) -> Request | None:
    text = user_text(record)
    if record is None or text is None:
        return None
    logged = _parse_time(record.get("time"))
    return Request(text, file_time_seconds if logged is None else logged)


def _parse_time(value: Any) -> float | None:
    """Read an ISO 8601 time (UTC unless it says otherwise) or a number as seconds since the epoch."""
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _lines_from_end(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, last first, holding one block and one line of it at a time."""
    position = file.seek(0, os.SEEK_END)
    head = b""  # the beginning of it may lie in the block before
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        file.seek(start)
        head, *complete = (file.read(position - start) + head).split(b"\n")
        position = start
        yield from reversed(complete)
        if len(head) > _MAX_LINE_BYTES:
            head = _TOO_LONG
    yield head
