"""How a run ends: the better candidate is rolled out, or waits for a person, or a person has decided before."""

import logging
from dataclasses import dataclass
from typing import Any

from flows.approval_form import ask_in_prefect, close_form
from flows.outcome import Status
from flows.rollout import roll_out
from tasks.contracts.artifacts import GateDecision, RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.approvals import ask, asked_before, open_request
from tasks.registry.ledger import overruled_versions
from tasks.registry.outage import patiently
from tasks.registry.versions import find_overruled, note_approval

log = logging.getLogger("llm_retrain.retrain")

_BY_VERDICT: dict[str, Status] = {"promote": "promoted", "reject": "rejected", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class Conclusion:
    """What became of a candidate after the gate.

    Attributes:
        status: how the run ended.
        served: what answers for the stable name now, if this run switched it.
        overruled: how a person had decided against this model before: "rolled back", "refused" or "".
        waits_until: until when a person can decide, in ISO 8601; empty if nobody is asked.
        asked_in: the Prefect run with the form, if there is one.
    """

    status: Status
    served: ServedVersion | None = None
    overruled: str = ""
    waits_until: str = ""
    asked_in: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what an `Outcome` says of it."""
        return {"status": self.status, "overruled": self.overruled, "waits_until": self.waits_until}


def conclude(
    version: RegisteredVersion,
    decision: GateDecision,
    champion: RegisteredVersion | None,
    config: RetrainConfig,
    home: Home,
    reason: str,
) -> Conclusion:
    """Roll out what passed the gate, or ask a person; what a person decided against stays where it is.

    Args:
        version: the candidate, registered.
        decision: the gate's.
        champion: the version that it was judged against.
        config: where it is served, and who decides.
        home: the state directory.
        reason: why there was a retraining.

    Raises:
        RolloutError: it could not be rolled out; nothing has changed.
    """
    if decision.verdict != "promote":
        return Conclusion(_BY_VERDICT[decision.verdict])
    registry = config.registry
    decided = patiently(lambda: find_overruled(registry, version.servable_digest, home), "promotion", registry)
    if decided is not None:
        return Conclusion("unchanged", overruled=overruled_versions(home, registry.model_name)[decided.version])
    against = champion.version if champion else None
    if config.promotion.approval == "person" and not _is_approved(version, against, home):
        return _wait(version, against, config, home, reason)
    waited = open_request(home, registry.model_name)
    served = patiently(lambda: roll_out(version, config, home, reason, against), "promotion", registry)
    close_form(waited, f"version {version.version} was promoted")
    return Conclusion("promoted", served)


def _is_approved(version: RegisteredVersion, champion: int | None, home: Home) -> bool:
    """Say whether a person has approved just this before, and it could not be rolled out then."""
    before = asked_before(version, champion, home)
    return before is not None and before.status == "approved"


def _wait(
    version: RegisteredVersion, champion: int | None, config: RetrainConfig, home: Home, reason: str
) -> Conclusion:
    before = open_request(home, config.registry.model_name)
    request = ask(version, champion, config.promotion.expires_after_hours, reason, home)
    note = f"waits for a decision until {request.expires}"
    patiently(lambda: note_approval(version, note, config.registry, home), "asking a person", config.registry)
    if before != request:
        close_form(before, f"version {version.version} waits instead")
    asked_in = ask_in_prefect(request, config)
    log.info("Version %d %s: llm-retrain approve %d, or reject", version.version, note, version.version)
    return Conclusion("waiting", waits_until=request.expires, asked_in=asked_in)
