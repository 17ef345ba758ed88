"""What people asked the served model, where they corrected the answer (or, if the settings say so, called it good).

The request log and the feedback log are joined by the request's id. Of several feedbacks, and of several requests, of
one id the last in the file stands. Golden prompts are no requests. Memory grows with the number of ids that have
feedback, not with the traffic.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from tasks.contracts.engine import GOLDEN_REQUEST_ID
from tasks.contracts.errors import DataError
from tasks.contracts.source_config import ServedLogSource
from tasks.data.formats import checked_messages, checked_text, kind_of
from tasks.data.rows import Row, UnusableRow, build_row
from tasks.data.shown import shown_name
from tasks.data.sources.files import readable
from tasks.data.sources.json_lines import bounded_lines, parse_slowly
from tasks.data.sources.materialised import open_materialised
from tasks.data.sources.shard import Malformed, Shard

SOURCE_NAME = "served-log"
_MALFORMED = "malformed"
_BLOCK_BYTES = 2**20


def open_log(
    source: ServedLogSource,
    index: int,
    config_key: str,
    cache: Path,
    request_log: Path | None,
    feedback_log: Path | None,
) -> tuple[list[Shard], list[Any]]:
    """Join requests with feedback into a chunk, unless neither log has grown.

    Both are read whole each time they have changed: feedback comes later than the request it is about. A log of the
    served model that does not exist yet is empty; one that the settings name must exist.

    Returns:
        The pieces, and number and digest of all records.

    Raises:
        DataError: a named log does not exist or cannot be read.
    """
    requests = _log_file(source.requests_path, request_log, "requests_path", config_key)
    feedback = _log_file(source.feedback_path, feedback_log, "feedback_path", config_key)
    settings = {"kind": source.kind, "rated_good": source.rated_good, "logs": [str(requests), str(feedback)]}
    with readable(str(requests or feedback), config_key), open_materialised(cache, settings, config_key) as chunks:
        # Requests may be logged while this reads: what is read ends where the files end now.
        ends = [path.stat().st_size if path else 0 for path in (requests, feedback)]
        content = ",".join(_digest_of_start(path, end) for path, end in zip((requests, feedback), ends, strict=True))
        if chunks.state.input != content:
            chunks.replace(_records(requests, feedback, ends, source.rated_good), content)
        return chunks.shards(index, SOURCE_NAME), chunks.content()


def row_builder(source: ServedLogSource, name: str) -> Callable[[object], Row]:
    """Return the function that makes rows of the joined records; it raises `UnusableRow` for a malformed log line."""

    def build(record: object) -> Row:
        if not isinstance(record, dict):
            raise UnusableRow(f"expected a JSON object, found {kind_of(record)}")
        if _MALFORMED in record:
            raise UnusableRow(str(record[_MALFORMED]))
        meta = {"request_id": record["request_id"], "served_by": record["served_by"], "feedback": record["feedback"]}
        return build_row(checked_messages(record["messages"]), name, source.slice, meta)

    return build


def _log_file(named: str, default: Path | None, setting: str, config_key: str) -> Path | None:
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise DataError(f"{config_key} has {setting} {named!r}, which does not exist; expected a JSONL file")
        return path
    return default if default is not None and default.is_file() else None


def _digest_of_start(path: Path | None, end: int) -> str:
    if path is None:
        return "none"
    digest, left = hashlib.sha256(), end
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _records(
    requests: Path | None, feedback: Path | None, ends: list[int], rated_good: bool
) -> Iterator[dict[str, Any]]:
    """Yield a record for each request with usable feedback, and one for each malformed line."""
    judged: dict[str, int] = {}  # id → where its last feedback stands
    if feedback is None or requests is None:
        return
    for offset, entry in _entries(feedback, ends[1]):
        problem = entry if isinstance(entry, str) else _flaw_of_feedback(entry)
        if problem is None:
            judged[entry["id"]] = offset
        else:
            yield {_MALFORMED: f"feedback at byte {offset}: {problem}"}
    asked: dict[str, int] = {}
    for offset, entry in _entries(requests, ends[0]):
        problem = entry if isinstance(entry, str) else _flaw_of_request(entry)
        if problem is not None:
            yield {_MALFORMED: f"request at byte {offset}: {problem}"}
        elif entry["id"] in judged and entry["id"] != GOLDEN_REQUEST_ID:
            asked[entry["id"]] = offset
    with requests.open("rb") as request_file, feedback.open("rb") as feedback_file:
        for request_id, offset in asked.items():
            record = _joined(_entry_at(request_file, offset), _entry_at(feedback_file, judged[request_id]), rated_good)
            if record is not None:
                yield record


def _joined(request: dict[str, Any], feedback: dict[str, Any], rated_good: bool) -> dict[str, Any] | None:
    correction, answer = feedback.get("correction"), request.get("answer")
    if isinstance(correction, str) and correction.strip():
        text, kind = correction, "corrected"
    elif rated_good and feedback.get("rating") == "good" and isinstance(answer, str):
        text, kind = answer, "rated good"
    else:
        return None
    return {
        "messages": [*request["messages"], {"role": "assistant", "content": text}],
        "request_id": request["id"],
        "served_by": request.get("served_by"),
        "feedback": kind,
    }


def _flaw_of_feedback(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return "expected an object with the id of a request"
    correction, rating = entry.get("correction"), entry.get("rating")
    if correction is None and rating is None:
        return "expected a correction or a rating"
    if rating not in (None, "good", "bad"):
        shown = shown_name(rating, "text") if isinstance(rating, str) else kind_of(rating)
        return f"rating is {shown}; expected good or bad"
    return _flaw_of_text(correction, "correction") if correction is not None else None


def _flaw_of_request(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return "expected an object with an id"
    messages = entry.get("messages")
    if not isinstance(messages, list):
        return f"messages must be a list, found {kind_of(messages)}"
    return None


def _flaw_of_text(value: object, label: str) -> str | None:
    try:
        checked_text(value, label)
    except UnusableRow as problem:
        return str(problem)
    return None


def _entries(path: Path, end: int) -> Iterator[tuple[int, Any]]:
    """Yield where a line begins, and what it holds; a text says what is wrong with it."""
    offset = 0
    with path.open("rb") as file:
        for line in bounded_lines(file, end) if end else ():
            entry = _parsed(line)
            if entry is not None:
                yield offset, entry
            offset = file.tell()


def _parsed(line: bytes | Malformed) -> Any:
    if not isinstance(line, Malformed):
        if not line.strip():
            return None
        try:
            parsed = orjson.loads(line)
        except ValueError:
            parsed = parse_slowly(line)
        if not isinstance(parsed, Malformed):
            return parsed if isinstance(parsed, dict) else [parsed]
        line = parsed
    return f"{line.reason} ({line.detail})"


def _entry_at(file: BinaryIO, offset: int) -> dict[str, Any]:
    file.seek(offset)
    line = file.readline()
    entry: dict[str, Any] = _parsed(line)
    return entry
