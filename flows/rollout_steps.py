"""The steps of a roll-out over Triton, routing and aliases, each with its way back."""

from dataclasses import dataclass

from flows.undo import UndoSteps
from tasks.contracts.artifacts import RegisteredVersion, ServedVersion
from tasks.contracts.config import RetrainConfig
from tasks.contracts.home import Home
from tasks.registry.aliases import aliases_after, aliases_back, read_aliases, write_aliases
from tasks.registry.ledger import LedgerEvent, append_to_ledger, previous_after_rollback
from tasks.serving import rollout
from tasks.serving.repository import remove
from tasks.serving.routing import read_routing, write_routing
from tasks.serving.triton_client import TritonAddress, is_model_ready
from tasks.serving.tritonserver import why_triton_cannot_run


@dataclass(frozen=True)
class Move:
    """One attempt to make `target` the champion, and what each of its lines in the ledger says.

    Attributes:
        target: the version that shall answer.
        config: where it is served and registered.
        home: the state directory.
        why: for the ledger.
        outcome: "promoted" or "rolled back".
        aliases: alias → version before the move.
    """

    target: RegisteredVersion
    config: RetrainConfig
    home: Home
    why: str
    outcome: LedgerEvent
    aliases: dict[str, int]

    @property
    def before(self) -> int | None:
        """The champion before the move."""
        return self.aliases.get("champion")

    def record(self, event: LedgerEvent, evidence: str = "") -> None:
        """Write a line of the ledger."""
        intent = {"outcome": self.outcome, "aliases": self.aliases} if event == "started" else None
        model = self.config.registry.model_name
        append_to_ledger(self.home, event, model, self.before, self.target.version, self.why, evidence, intent)


def serve(move: Move, address: TritonAddress | None, undo: UndoSteps) -> ServedVersion:
    """Publish, load, verify and route the version; `address` is None where Triton cannot run.

    Raises:
        RolloutError: it does not load, or answers differently than evaluated.
    """
    serving, home = move.config.serving, move.home
    prompts = rollout.golden_prompts(move.target, serving.golden_prompts)
    name = rollout.triton_model_name(serving, move.target.version)
    if not (home.triton_repository / name).exists():
        undo.add(f"taking {name} out", lambda: remove(home.triton_repository, home.triton_incoming, name))
    directory = rollout.publish_version(move.target, serving, home)
    if address is None:
        rollout.check_golden_prompts(prompts, name, rollout.ask_in_process(directory))
        _route(move, undo)
        missing = why_triton_cannot_run()
        note = f"{len(prompts)} golden prompts answered as evaluated, in-process; not being served: {missing}"
        return ServedVersion(move.target.version, name, served=False, note=note)
    if not is_model_ready(address, name):
        undo.add(f"unloading {name}", lambda: rollout.unload_version(address, name, serving))
    rollout.load_version(address, name, serving)
    move.record("loaded", f"{name} is ready at {address.http}")
    rollout.check_golden_prompts(prompts, name, rollout.ask_directly(address, name))
    move.record("verified", f"{len(prompts)} golden prompts answered as evaluated")
    _route(move, undo)
    through = rollout.ask_through(address, serving.model_name, name)
    rollout.check_golden_prompts(prompts, serving.model_name, through)
    move.record("routed", f"{serving.model_name} is answered by {name}")
    note = f"{len(prompts)} golden prompts answered as evaluated, directly and through {serving.model_name}"
    return ServedVersion(move.target.version, name, served=True, note=note)


def move_aliases(move: Move, undo: UndoSteps) -> dict[str, int]:
    """Move `champion` and `previous` and return all aliases; after a rollback `previous` is the champion before the
    one returned to."""
    target, registry = move.target.version, move.config.registry
    if move.outcome == "rolled back":
        previous = previous_after_rollback(move.home, registry.model_name, move.before, target)
    else:
        previous = move.aliases.get("previous") if move.before == target else move.before
    # Read anew: serving takes up to minutes, and a retraining that registers its challenger does not wait for it.
    after = aliases_after(read_aliases(registry, move.home), target, previous)
    undo.add("putting the aliases back", lambda: _put_aliases_back(move))
    write_aliases(registry, move.home, after)
    return after


def _put_aliases_back(move: Move) -> None:
    registry = move.config.registry
    write_aliases(registry, move.home, aliases_back(move.aliases, read_aliases(registry, move.home)))


def _route(move: Move, undo: UndoSteps) -> None:
    path = move.home.routing_file(move.config.serving.model_name)
    before = read_routing(path)
    undo.add("putting the routing back", lambda: write_routing(path, before))
    rollout.route_to(move.home, move.config.serving, move.target.version)
