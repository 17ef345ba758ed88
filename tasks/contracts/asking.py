"""How the evaluation asks a model that a server holds; the flow hands the server on, as stages do not import others."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tasks.contracts.artifacts import ServableModel


@dataclass(frozen=True)
class ReferenceLikelihood:
    """How a model takes an answer that it did not give.

    Attributes:
        nats: minus the natural logarithm of the probability that it gives the whole answer, end token included.
        tokens: the answer's tokens, end token included.
    """

    nats: float
    tokens: int


@dataclass(frozen=True)
class ServedAnswer:
    """An answer over the network.

    Attributes:
        text: the answer.
        new_tokens: generated tokens; None of a model that was built before models said so.
        finish_reason: "stop" if the model ended the answer, "length" if it was cut.
        likelihood: of the reference that was sent along; None if there was none, or if the model does not say.
    """

    text: str
    new_tokens: int | None
    finish_reason: str
    likelihood: ReferenceLikelihood | None = None


Ask = Callable[[list[dict[str, str]], str | None], ServedAnswer]
"""Ask a conversation, and how likely a reference is if there is one. May be called from several threads at once."""


@dataclass(frozen=True)
class EvaluationServer:
    """A server that can hold any servable for as long as it is asked.

    Attributes:
        open: holds a servable, under a name of its own, while a block runs.
        software: what of the server its answers depend on, as text; part of the answers' key.
        concurrency: how many ask at a time.
    """

    open: Callable[[ServableModel], AbstractContextManager[Ask]]
    software: str
    concurrency: int
