"""What a process that ended in the middle of a roll-out left behind, put in order before the next one."""

import logging
from typing import Any

from flows.rollout_steps import Move, serve
from flows.undo import UndoSteps
from tasks.contracts.config import RetrainConfig
from tasks.contracts.errors import LlmRetrainError, RolloutError
from tasks.contracts.home import Home
from tasks.registry.aliases import aliases_after, aliases_back, read_aliases, write_aliases
from tasks.registry.ledger import append_to_ledger, unfinished_move
from tasks.registry.versions import find_version
from tasks.serving import rollout
from tasks.serving.evaluated_model import remove_left_over
from tasks.serving.routing import read_routing
from tasks.serving.triton_client import TritonAddress

log = logging.getLogger("llm_retrain.rollout")


def recover(config: RetrainConfig, home: Home, address: TritonAddress | None) -> None:
    """End a move that was left half way, let the routing follow the alias `champion`, and remove what nobody asks.

    The alias decides: if it had moved, the version had been verified, and only the ledger's line is missing; if it had
    not, everything else goes back. The caller holds the promotion lock.

    Raises:
        StoreError: the ledger cannot be read or written.
        RegistryError: the aliases cannot be read or moved.
        RolloutError: what answers for the stable name was promoted in another registry; it goes on answering.
    """
    remove_left_over(home, address, config.serving)
    unfinished = end_unfinished(config, home)
    champion = read_aliases(config.registry, home).get("champion")
    answers = read_routing(home.routing_file(config.serving.model_name))
    expected = None if champion is None else rollout.triton_model_name(config.serving, champion)
    if answers.champion is not None and answers.champion != expected:
        if champion is None and not unfinished:
            raise RolloutError(
                f"{config.serving.model_name} is answered by {answers.champion}, and the registered model "
                f"{config.registry.model_name!r} has no champion: either registry.model_name or registry.tracking_uri "
                "names another registry than the one it was promoted in, or that one was lost; nothing was changed. "
                f"To start anew under this name, delete {home.routing_file(config.serving.model_name)}"
            )
        _follow_the_alias(champion, answers.version, config, home, address)


def end_unfinished(config: RetrainConfig, home: Home) -> bool:
    """End a move that was left half way in aliases and ledger, and say whether there was one; no server is asked.

    The caller holds the promotion lock.

    Raises:
        StoreError: the ledger cannot be read or written.
        RegistryError: the aliases cannot be read or moved.
    """
    unfinished = unfinished_move(home, config.registry.model_name)
    if unfinished is not None:
        _end(unfinished, config, home)
    return unfinished is not None


def _end(unfinished: dict[str, Any], config: RetrainConfig, home: Home) -> None:
    """Write the line that ends the move, after completing or restoring the aliases."""
    registry, before, target = config.registry, unfinished["from"], unfinished["to"]
    intent = unfinished.get("intent", {"outcome": "promoted", "aliases": {}})
    aliases = read_aliases(registry, home)
    champion = aliases.get("champion")
    if champion == target != before:
        write_aliases(registry, home, aliases_after(aliases, target, aliases.get("previous")))
        event, evidence = intent["outcome"], "found after a crash: the aliases had moved"
    else:
        if champion == before:  # otherwise somebody has moved it since
            write_aliases(registry, home, aliases_back(intent["aliases"], aliases))
        event, evidence = "undone", "found after a crash: the aliases had not moved"
    append_to_ledger(home, event, registry.model_name, before, target, unfinished["why"], evidence)
    log.warning("The move to version %s had no end; recorded as %r", target, event)


def _follow_the_alias(
    champion: int | None, routed: int | None, config: RetrainConfig, home: Home, address: TritonAddress | None
) -> None:
    """Route to the champion, verified as in any roll-out; if it cannot serve, what answers now goes on answering."""
    registry, undo = config.registry, UndoSteps()
    why = f"the routing named version {routed}"
    try:
        if champion is None:
            rollout.route_to(home, config.serving, None)
        else:
            target = find_version(registry, champion, home)
            serve(Move(target, config, home, why, "reconciled", {"champion": champion}), address, undo)
    except LlmRetrainError as error:
        failures = undo.run()
        log.warning("The alias champion is at version %s, which cannot be routed to: %s", champion, error)
        if failures:
            raise RolloutError(f"{error}; and undoing it failed: {failures[0]}") from error
        return
    append_to_ledger(home, "reconciled", registry.model_name, routed, champion, why, "the alias champion decides")
    log.warning("The routing named version %s; it follows the alias champion again: version %s", routed, champion)
