"""Versions that wait for a person: what each decision is about, bound to what was shown, and what became of it.

A request is a line of the ledger ("waiting") with the digests of the model, the report and the page that a person is to
judge, and the champion of that moment. Its answer is another line ("approved", "refused" or "lapsed").
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tasks.contracts.artifacts import RegisteredVersion
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of
from tasks.contracts.store import damage_of, read_manifest
from tasks.registry.ledger import ApprovalEvent, append_to_ledger, read_ledger

_ANSWERS = ("approved", "refused", "lapsed")
_CHAMPIONS = ("promoted", "rolled back")


@dataclass(frozen=True)
class Request:
    """One version that waits, or waited.

    Attributes:
        version: the version.
        champion: the one that it was judged against, None if there was none.
        servable: digest of the model that is to be served.
        report: digest of the scores.
        review: digest of the page.
        asked: when, in ISO 8601, UTC.
        expires: likewise, after when nobody's word counts.
    """

    version: int
    champion: int | None
    servable: str
    report: str
    review: str
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
        status: "open", or its answer; one that was not answered in time is "lapsed".
        why: what the answer gave as its reason.
    """

    request: Request
    status: Literal["open", "approved", "refused", "lapsed"]
    why: str = ""


def ask(version: RegisteredVersion, champion: int | None, hours: float, why: str, home: Home) -> Request:
    """Write down that a version waits, and return the request; the open one if it asks for the same.

    Another version that waited does so no more: it was judged before this one.

    Args:
        version: passed the gate.
        champion: the version that it was judged against.
        hours: until the request lapses.
        why: why there was a retraining.
        home: the state directory.

    Raises:
        StoreError: the ledger cannot be read or written.
    """
    same, before = asked_before(version, champion, home), open_request(home, version.name)
    if same is not None and same.status == "open":
        return same.request
    if before is not None:
        answer(before, "lapsed", version.name, f"version {version.version} waits instead", "", home)
    now = datetime.now(UTC)
    asked, expires = (moment.isoformat(timespec="seconds") for moment in (now, now + timedelta(hours=hours)))
    request = Request(version.version, champion, *_digests(version), asked=asked, expires=expires)
    evidence = f"passed the gate; waits for a decision until {expires}"
    append_to_ledger(
        home, "waiting", version.name, champion, version.version, why, evidence, approval={"request": asdict(request)}
    )
    return request


def asked_before(version: RegisteredVersion, champion: int | None, home: Home) -> Waiting | None:
    """Return the latest request for the same version, made of the same, against the same champion; None if none was.

    Args:
        version: passed the gate.
        champion: the version that it was judged against.
        home: the state directory.
    """
    subject = (version.version, champion, *_digests(version))
    found = (each for each in reversed(requests(home, version.name)) if _subject(each.request) == subject)
    return next(found, None)


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

    A champion that came in another way ends a request; if it is the version that waits, it is approved by that.
    """
    found: dict[str, Waiting] = {}
    for record in read_ledger(home, model):
        about: dict[str, Any] = record.get("approval", {})
        if record["event"] == "waiting":
            request = Request(**about["request"])
            found[request.key] = Waiting(request, "lapsed" if request.has_expired() else "open")
        elif record["event"] in _ANSWERS and about.get("key") in found:
            found[about["key"]] = Waiting(found[about["key"]].request, record["event"], record["why"])
        elif record["event"] in _CHAMPIONS:
            found |= {key: _ended_by(record, each) for key, each in found.items() if each.status == "open"}
    return list(found.values())


def _ended_by(record: dict[str, Any], waiting: Waiting) -> Waiting:
    if record["to"] == waiting.request.version:
        return Waiting(waiting.request, "approved", record["why"])
    return Waiting(waiting.request, "lapsed", f"version {record['to']} became champion")


def open_request(home: Home, model: str) -> Request | None:
    """Return the request that waits for an answer, or None."""
    return next((each.request for each in reversed(requests(home, model)) if each.status == "open"), None)


def what_changed(request: Request, version: RegisteredVersion, champion: int | None) -> str:
    """Say what is not any more what a person was shown; the empty string if all is.

    Args:
        request: what was asked.
        version: as it is registered now.
        champion: as it is now.
    """
    if champion not in (request.champion, request.version):
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


def _digests(version: RegisteredVersion) -> tuple[str, str, str]:
    paths = (version.servable_path, version.report_path, version.review_path)
    servable, report, review = (str(read_manifest(path)["digest"]) if path else "" for path in paths)
    return servable, report, review


def _subject(request: Request) -> tuple[object, ...]:
    return (request.version, request.champion, request.servable, request.report, request.review)
