"""How a run ends: the better candidate is rolled out, or waits for a person, or a person has decided before."""

import logging
from dataclasses import dataclass
from typing import Any

from flows.approval_form import ask_in_prefect, say_decided, write_on_its_page
from flows.locks import waiting_lock
from flows.outcome import Status
from flows.rollout import LOCK_TIMEOUT_SECONDS, approved_still, busy, not_overruled, refuse_another_champion, roll_out
from tasks.contracts.artifacts import GateDecision, RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.aliases import read_aliases
from tasks.registry.approvals import approved_before, ask, pending
from tasks.registry.ledger import overruled_versions
from tasks.registry.outage import patiently
from tasks.registry.versions import find_overruled

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
    return patiently(lambda: _promote_or_ask(version, against, config, home, reason), "promotion", registry)


def _promote_or_ask(
    version: RegisteredVersion, against: int | None, config: RetrainConfig, home: Home, reason: str
) -> Conclusion:
    """Roll it out, or ask; what was approved before and could not be rolled out then needs no second word."""
    waited, still = pending(home, config.registry.model_name), not_overruled(version, config, home)
    note = f"version {version.version} was promoted: {reason}"
    if config.promotion.approval == "person":
        approval = approved_before(version, against, config, home)
        if approval is None:
            return _wait(version, against, config, home, reason)
        reason = note = f"approved by {approval.by}: {approval.why}"
        still = approved_still(approval.request, version, config, home)
    served = roll_out(version, config, home, reason, against, still)
    if waited is not None:
        say_decided(waited.request, note, config.registry, home)
    return Conclusion("promoted", served)


def _wait(
    version: RegisteredVersion, champion: int | None, config: RetrainConfig, home: Home, reason: str
) -> Conclusion:
    registry, number = config.registry, version.version
    with waiting_lock(home, "promotion", LOCK_TIMEOUT_SECONDS, busy()):
        present = read_aliases(registry, home).get("champion")
        if present == number:
            return Conclusion("unchanged")
        refuse_another_champion(number, present, champion)
        before = pending(home, registry.model_name)
        request = ask(version, champion, config, reason, home)
    if before is not None and before.request != request:
        say_decided(before.request, f"lapsed: version {number} waits instead", registry, home)
    note = f"waits for a decision until {request.expires}"
    write_on_its_page(number, note, registry, home)
    asked_in = ask_in_prefect(request, config)
    log.info("Version %d %s: llm-retrain approve %d --reason …, or reject", number, note, number)
    return Conclusion("waiting", waits_until=request.expires, asked_in=asked_in)
