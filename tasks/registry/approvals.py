"""Versions that wait for a person: what each decision is about, bound to what was shown, and what became of it.

A request is a line of the ledger ("waiting") with the digests of the model, the report and the page that a person is to
judge, and the champion of that moment. Its answer is another line ("approved", "refused" or "lapsed"). An approval is
used up by the next move of the champion, whichever it is, and counts no longer than the request.
"""

import logging
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of
from tasks.contracts.store import damage_of, read_manifest
from tasks.registry.connection import tracking_uri
from tasks.registry.ledger import ApprovalEvent, append_to_ledger, numbered_ledger, verify_ledger

log = logging.getLogger("llm_retrain.registry")

_ANSWERS = ("approved", "refused", "lapsed")
_CHAMPIONS = ("promoted", "rolled back")

Status = Literal["open", "approved", "done", "refused", "lapsed"]


@dataclass(frozen=True)
class Request:
    """One version that waits, or waited.

    Attributes:
        version: the version.
        champion: the one that it was judged against, None if there was none.
        servable: digest of the model that is to be served.
        report: digest of the scores.
        review: digest of the page.
        serving: the name that it would answer for.
        registry: digest of the place where it is registered.
        asked: when, in ISO 8601, UTC.
        expires: likewise, after when nobody's word counts.
    """

    version: int
    champion: int | None
    servable: str
    report: str
    review: str
    serving: str
    registry: str
    asked: str
    expires: str

    @property
    def key(self) -> str:
        """What an answer names: the digest of all of it."""
        return digest_of(asdict(self))

    def has_expired(self) -> bool:
        """Say whether it is too late."""
        return datetime.now(UTC) > datetime.fromisoformat(self.expires)


@dataclass(frozen=True)
class Waiting:
    """A request and what became of it.

    Attributes:
        request: what was asked.
        line: its place in the ledger, from 1.
        status: "open"; "approved" and not rolled out yet; "done" when it was; "refused"; "lapsed", also if nobody
            answered in time.
        why: the reason of its answer.
        by: who answered.
    """

    request: Request
    line: int
    status: Status = "open"
    why: str = ""
    by: str = ""

    @property
    def is_pending(self) -> bool:
        """It can be decided, or decided otherwise: nothing has been rolled out."""
        return self.status in ("open", "approved")


def ask(version: RegisteredVersion, champion: int | None, config: RetrainConfig, why: str, home: Home) -> Request:
    """Write down that a version waits, and return the request; the open one if it asks for the same.

    Another version that waited does so no more: it was judged before this one.

    Args:
        version: passed the gate.
        champion: the version that it was judged against.
        config: where it is registered and served, and for how long the request holds.
        why: why there was a retraining.
        home: the state directory.

    Raises:
        StoreError: the ledger cannot be read or written.
    """
    now = datetime.now(UTC)
    end = now + timedelta(hours=config.promotion.expires_after_hours)
    asked, expires = now.isoformat(timespec="microseconds"), end.isoformat(timespec="seconds")
    request = replace(_subject(version, champion, config, home), asked=asked, expires=expires)
    before = pending(home, version.name)
    if before is not None:
        if before.status == "open" and _is_same(before.request, request):
            return before.request
        answer(before.request, "lapsed", version.name, f"version {version.version} waits instead", "", home)
    evidence = f"passed the gate; waits for a decision until {expires}"
    append_to_ledger(
        home, "waiting", version.name, champion, version.version, why, evidence, approval={"request": asdict(request)}
    )
    return request


def approved_before(
    version: RegisteredVersion, champion: int | None, config: RetrainConfig, home: Home
) -> Waiting | None:
    """Return an approval of just this that was not rolled out yet and still counts, or None.

    Args:
        version: passed the gate.
        champion: the version that it was judged against.
        config: where it is registered and served.
        home: the state directory.
    """
    before, subject = pending(home, version.name), _subject(version, champion, config, home)
    if before is None or before.status != "approved" or not _is_same(before.request, subject):
        return None
    return None if what_broke(before, home) else before


def answer(request: Request, event: ApprovalEvent, model: str, why: str, name: str, home: Home) -> None:
    """Write down what became of a request.

    Args:
        request: what was asked.
        event: "approved", "refused" or "lapsed".
        model: the registered model.
        why: the reason, in a person's words if there is a person.
        name: who decided; empty if nobody did.
        home: the state directory.

    Raises:
        StoreError: the ledger cannot be written.
    """
    evidence = f"decided by {name}" if name else "nobody decided"
    approval = {"key": request.key, "name": name}
    append_to_ledger(home, event, model, request.champion, request.version, why, evidence, approval=approval)


def requests(home: Home, model: str) -> list[Waiting]:
    """Return every request of a model with what became of it, oldest first.

    A line that holds no request is named in the log and passed over.
    """
    found: dict[str, Waiting] = {}
    for line, record in numbered_ledger(home, model):
        about = record.get("approval")
        about = about if isinstance(about, dict) else {}
        if record["event"] == "waiting":
            request = _request_in(about)
            if request is None:
                log.warning("Line %d of the ledger %s holds no request and is passed over", line, home.ledger)
            else:
                found[request.key] = Waiting(request, line)
        elif record["event"] in _ANSWERS and (key := str(about.get("key"))) in found:
            answered = {"status": record["event"], "why": record["why"], "by": str(about.get("name", ""))}
            found[key] = replace(found[key], **answered)
        elif record["event"] in _CHAMPIONS:
            found |= {key: _ended_by(record, each) for key, each in found.items() if each.is_pending}
    return [_in_time(each) for each in found.values()]


def pending(home: Home, model: str) -> Waiting | None:
    """Return the request that is not answered, or approved and not rolled out; None if there is none."""
    return next((each for each in reversed(requests(home, model)) if each.is_pending), None)


def open_request(home: Home, model: str) -> Request | None:
    """Return the request that waits for an answer, or None."""
    return next((each.request for each in reversed(requests(home, model)) if each.status == "open"), None)


def standing(request: Request, model: str, home: Home) -> Waiting:
    """Return what became of a request that the ledger holds."""
    return next(each for each in requests(home, model) if each.request == request)


def too_late(waiting: Waiting) -> str:
    """Say what became of a request that can be decided no more."""
    number = waiting.request.version
    if waiting.status == "lapsed":
        return f"the request for version {number} has lapsed: {waiting.why}; nothing was changed, a new run asks again"
    if waiting.status == "done":
        was = f"version {number} was approved before ({waiting.why}), and became champion; nothing was changed"
        return f"{was}; llm-retrain history says what came after"
    if waiting.status == "approved":
        was = f"version {number} was approved before ({waiting.why}), and is not rolled out yet; nothing was changed"
        return f"{was}; llm-retrain approve {number} does that, and reject takes it back"
    was = f"version {number} was {waiting.status} before ({waiting.why}); nothing was changed"
    return f"{was}; llm-retrain promote {number} makes it champion all the same"


def what_changed(request: Request, version: RegisteredVersion, champion: int | None) -> str:
    """Say what is not any more what a person was shown; the empty string if all is.

    Args:
        request: what was asked.
        version: as it is registered now.
        champion: as it is now.
    """
    if champion == request.version != request.champion:
        return "it is champion already"
    if champion != request.champion:
        was = "there was no champion" if request.champion is None else f"version {request.champion} was champion"
        now = "there is none" if champion is None else f"version {champion} is"
        return f"{was} when it was asked, and now {now}"
    places = (version.servable_path, version.report_path, version.review_path)
    for name, path in zip(("servable", "report", "review"), places, strict=True):
        if path is None:
            return f"its {name} is not registered any more"
        damage = damage_of(path)
        if damage:
            return f"its {name} at {path} was changed or lost ({damage})"
        if read_manifest(path)["digest"] != getattr(request, name):
            return f"its {name} is another one than was shown"
    return ""


def what_broke(waiting: Waiting, home: Home) -> str:
    """Say that the ledger was changed from the request on, so that it cannot be told what was decided; else nothing."""
    broken = [each.line for each in verify_ledger(home) if each.breaks_chain and each.since >= waiting.line]
    return f"the ledger was changed after it was asked (line {broken[0]}; llm-retrain history)" if broken else ""


def asked_elsewhere(request: Request, config: RetrainConfig, home: Home) -> str:
    """Say that a request is about another registry or another served name than a configuration's; else nothing."""
    if request.registry != _place(config, home):
        return "it was asked about in another registry than registry.tracking_uri names"
    if request.serving != config.serving.model_name:
        return f"it would answer for {request.serving}, and serving.model_name is {config.serving.model_name}"
    return ""


def _place(config: RetrainConfig, home: Home) -> str:
    return digest_of(tracking_uri(config.registry, home))  # an address can hold a password


def _subject(version: RegisteredVersion, champion: int | None, config: RetrainConfig, home: Home) -> Request:
    """Return a request without its times."""
    paths = (version.servable_path, version.report_path, version.review_path)
    servable, report, review = (str(read_manifest(path)["digest"]) if path else "" for path in paths)
    where = config.serving.model_name, _place(config, home)
    return Request(version.version, champion, servable, report, review, *where, asked="", expires="")


def _is_same(one: Request, other: Request) -> bool:
    return replace(one, asked="", expires="") == replace(other, asked="", expires="")


def _request_in(about: dict[str, Any]) -> Request | None:
    """Return the request that a line of the ledger holds; None if it holds none that can be read."""
    try:
        written = about["request"]
        request = Request(**{field.name: written[field.name] for field in fields(Request)})
        is_aware = all(datetime.fromisoformat(moment).tzinfo for moment in (request.asked, request.expires))
    except (KeyError, TypeError, ValueError):
        return None
    return request if is_aware else None


def _ended_by(record: dict[str, Any], waiting: Waiting) -> Waiting:
    """Return what becomes of a request when the champion moves: it is done by that, or void."""
    if record["event"] == "promoted" and record["to"] == waiting.request.version:
        return replace(waiting, status="done", why=waiting.why or record["why"])
    return replace(waiting, status="lapsed", why=f"version {record['to']} became champion")


def _in_time(waiting: Waiting) -> Waiting:
    if waiting.is_pending and waiting.request.has_expired():
        said = "approved, and not rolled out" if waiting.status == "approved" else "nobody decided"
        return replace(waiting, status="lapsed", why=f"{said} until {waiting.request.expires}")
    return waiting
