"""A person's decision on a version that passed the gate: by a form in Prefect, or by the command line."""

import logging
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import ConfigDict, Field, ValidationError

from flows.approval_form import say_decided
from flows.locks import waiting_lock
from flows.log_lines import record_log_lines
from flows.recovery import end_unfinished
from flows.rollout import LOCK_TIMEOUT_SECONDS, approved_still, busy, roll_out, settled
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import ConfigError, RegistryError
from tasks.contracts.home import Home
from tasks.evaluation.markdown import as_text
from tasks.evaluation.preference_sentence import sentence
from tasks.registry.aliases import read_aliases
from tasks.registry.approvals import (
    Request,
    Waiting,
    answer,
    asked_elsewhere,
    requests,
    standing,
    too_late,
    what_broke,
    what_changed,
)
from tasks.registry.people import preferences_by_people
from tasks.registry.versions import find_version

log = logging.getLogger("llm_retrain.approval")

_SHORTEST_WAIT_SECONDS = 1
_UNSEEN = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_TEXT = rf"^[^\s{_UNSEEN}]([^{_UNSEEN}]*[^\s{_UNSEEN}])?$"
"""Not blank at its ends, and nothing that steers a terminal or turns the direction of text."""


class Decision(RunInput):
    """What a person decides, and the form that asks for it."""

    # Patterns, not validators: the server holds the form against them, before the run goes on. A line feed at the end,
    # which Python's `$` lets through there, is taken off here.
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    decision: Literal["approve", "reject"] = Field(
        description="approve: it becomes champion; reject: no later run promotes it"
    )
    reason: str = Field(min_length=3, max_length=1_000, pattern=_TEXT, description="why; goes to the ledger")
    name: str = Field(min_length=2, max_length=100, pattern=_TEXT, description="who decides; goes to the ledger")


def decision_of(decision: Literal["approve", "reject"], reason: str, name: str) -> Decision:
    """Return what a person said at the command line.

    Raises:
        ConfigError: the reason or the name is too short or too long.
    """
    try:
        return Decision(decision=decision, reason=reason.strip(), name=name.strip())
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--{problem['loc'][0]} is {problem['input']!r}: {problem['msg']}") from error


@flow(name="approve", validate_parameters=True)
def approve(
    version: int,
    request: str = "",
    decision: Decision | None = None,
    config: RetrainConfig = RetrainConfig(),  # noqa: B008
) -> Any:
    """Show a version that waits, ask a person, and do what they decide, if it is still what they were shown.

    Args:
        version: the version that waits.
        request: what is asked, as the ledger knows it; the latest request of this version if it is empty.
        decision: what was decided; if it is not given, the run is suspended until its form is filled in.
        config: where the version is registered and served.

    Returns:
        A `ServedVersion` in a state named Approved, or None in a state named Refused, or Decided if it was before.

    Raises:
        RegistryError: nobody asks, it was decided before, or it is not any more what was shown; nothing has changed.
        RolloutError: it was approved and did not serve as evaluated; nothing has changed.
    """
    record_log_lines()
    home = Home.from_environment()
    waiting = _request_of(version, request, config, home)
    if decision is None:
        if waiting.status != "open":
            return Completed(name="Decided", message=too_late(waiting))
        with waiting_lock(home, "promotion", LOCK_TIMEOUT_SECONDS, busy()):
            _still_as_shown(waiting, config, home)
        decision = _ask(waiting.request, config, home)
    served = decide(waiting.request, decision, config, home)
    said = f"{decision.name}: {decision.reason}"
    return Completed(name="Refused" if served is None else "Approved", message=said, data=served)


def decide(asked: Request, decision: Decision, config: RetrainConfig, home: Home) -> ServedVersion | None:
    """Do what a person decided, or nothing if it is not any more what they were shown.

    Args:
        asked: what they were shown.
        decision: theirs.
        config: where the version is registered and served.
        home: the state directory.

    Returns:
        What serves now, or None if it was refused.

    Raises:
        RegistryError: it was decided before, or has changed.
        RolloutError: it was approved and did not serve as evaluated; it can be approved again, or rejected.
    """
    event: Literal["approved", "refused"] = "approved" if decision.decision == "approve" else "refused"
    model = config.registry.model_name
    with waiting_lock(home, "promotion", LOCK_TIMEOUT_SECONDS, busy()):
        if event == "approved":
            settled(config, home)
        else:
            end_unfinished(config, home)  # an approval whose roll-out was killed may have been done
        waiting = standing(asked, model, home)
        version = _still_as_shown(waiting, config, home)
        if (waiting.status, waiting.by, waiting.why) != (event, decision.name, decision.reason):
            answer(asked, event, model, decision.reason, decision.name, home)
    note = f"{event} by {decision.name}: {decision.reason}"
    say_decided(asked, note, config.registry, home)
    log.info("Version %d was %s", asked.version, note)
    if event == "refused":
        return None
    return roll_out(version, config, home, note, asked.champion, approved_still(asked, version, config, home))


def _still_as_shown(waiting: Waiting, config: RetrainConfig, home: Home) -> RegisteredVersion:
    """Return the version; the caller holds the promotion lock.

    What was approved and not rolled out, because that failed or was killed, can be approved again, or rejected.
    """
    asked = waiting.request
    if not waiting.is_pending:
        raise RegistryError(too_late(waiting))
    elsewhere = asked_elsewhere(asked, config, home)
    if elsewhere:
        raise RegistryError(f"version {asked.version} cannot be decided here: {elsewhere}; nothing was changed")
    version = find_version(config.registry, asked.version, home)
    changed = what_broke(waiting, home) or what_changed(
        asked, version, read_aliases(config.registry, home).get("champion")
    )
    if changed:
        answer(asked, "lapsed", config.registry.model_name, changed, "", home)
        say_decided(asked, f"lapsed: {changed}", config.registry, home)
        raise RegistryError(
            f"version {asked.version} is not any more what was shown: {changed}; nothing was changed, and the request "
            "has lapsed: a new run asks again"
        )
    return version


def _request_of(version: int, key: str, config: RetrainConfig, home: Home) -> Waiting:
    """Return what is asked about a version.

    Raises:
        RegistryError: nobody asks; or, where no request is named, it can be decided no more.
    """
    of_version = [each for each in requests(home, config.registry.model_name) if each.request.version == version]
    found = [each for each in of_version if key in ("", each.request.key)]
    if not found:
        name = config.registry.model_name
        raise RegistryError(
            f"version {version} of {name!r} waits for nobody's decision; llm-retrain status says what does"
        )
    if not found[-1].is_pending and not key:
        raise RegistryError(too_late(found[-1]))
    return found[-1]


def _ask(asked: Request, config: RetrainConfig, home: Home) -> Decision:
    """Suspend the run until its form is filled in; the worker then runs it anew, and this returns what was said."""
    version = find_version(config.registry, asked.version, home)
    page = (version.review_path / "review.md").read_text(encoding="utf-8") if version.review_path else ""
    create_markdown_artifact(
        key=f"approval-v{asked.version}", markdown=page, description=f"Version {asked.version} waits for a decision"
    )
    left = datetime.fromisoformat(asked.expires) - datetime.now(UTC)
    form = Decision.with_initial_data(description=_introduction(asked, page, version))
    seconds = max(int(left.total_seconds()), _SHORTEST_WAIT_SECONDS)
    log.info("Version %d waits for a decision: Resume shows the form", asked.version)
    return suspend_flow_run(wait_for_input=form, timeout=seconds, key=asked.key[:16])


def _introduction(asked: Request, page: str, version: RegisteredVersion) -> str:
    """Return what stands above the form, as Markdown."""
    against = "the base model" if asked.champion is None else f"version {asked.champion}, the champion"
    verdict = page.partition("\n## ")[0].removeprefix("# ")
    return "\n".join(
        [
            f"**Version {asked.version}** passed the gate against {against}, and waits until "
            f"{asked.expires[:16].replace('T', ' ')} UTC.",
            "",
            verdict,
            "",
            *(f"{as_text(sentence(said), 1_000)}\n" for said in preferences_by_people(version)),
            f"The whole page is the artifact `approval-v{asked.version}` of this run, and `review/review.html` of the "
            "run in MLflow that made it. What is decided holds for just this:",
            "",
            *(f"- {name} `{getattr(asked, name)[:12]}`" for name in ("servable", "report", "review")),
        ]
    )


__all__ = ["Decision", "approve", "decide", "decision_of"]
