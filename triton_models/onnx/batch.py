"""Sequences that are decoded together: answers that grow, references that are scored, prompts that are read before."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder
from .prompt import Likelihood

_MOST_SLOTS = 64
_CACHE_BYTES = 1_000_000_000
_TILE_ROWS = 128


@dataclass
class Sequence(ABC):
    """A sequence that is read token by token.

    Attributes:
        position: of its conversation.
        prompt: its first tokens.
        next_token: what is read next.
        length: tokens that were read.
        is_done: nothing more has to be read.
    """

    position: int
    prompt: list[int]
    next_token: int = field(default=0, init=False)
    length: int = field(default=0, init=False)
    is_done: bool = field(default=False, init=False)

    def take(self, logits: NDArray[np.float32]) -> None:
        """Take up what the model says after what was read: the prompt, and then a token each time."""
        self.length = self.length + 1 if self.length else len(self.prompt)
        self._decide(logits)

    @abstractmethod
    def _decide(self, logits: NDArray[np.float32]) -> None:
        """Choose what is read next, and whether it is done."""


@dataclass
class Answering(Sequence):
    """An answer that grows by the likeliest token, until that is a stop token or the answer is long enough."""

    limit: int
    stops: frozenset[int]
    new_tokens: list[int] = field(default_factory=list, init=False)
    stopped: bool = field(default=False, init=False)

    def _decide(self, logits: NDArray[np.float32]) -> None:
        self.next_token = int(logits.argmax())
        self.stopped = self.next_token in self.stops
        if not self.stopped:
            self.new_tokens.append(self.next_token)
        self.is_done = self.stopped or len(self.new_tokens) >= self.limit


@dataclass
class Scoring(Sequence):
    """A reference whose every token's probability is asked, given those before it."""

    target: list[int]
    nats: float = field(default=0.0, init=False)
    _scored: int = field(default=0, init=False)
    _likeliest: int = field(default=0, init=False)

    @property
    def likelihood(self) -> Likelihood:
        """How likely the whole target is."""
        return Likelihood(self.nats, len(self.target), self._likeliest)

    def _decide(self, logits: NDArray[np.float32]) -> None:
        self.next_token = self.target[self._scored]
        shifted = logits.astype(np.float64) - float(logits.max())
        self.nats += float(np.log(np.exp(shifted).sum()) - shifted[self.next_token])
        self._likeliest += int(logits.argmax()) == self.next_token
        self._scored += 1
        self.is_done = self._scored == len(self.target)


class Prompts:
    """Reads prompts one after the other, each from where it differs from the one before."""

    def __init__(self, decoder: Decoder, room: int) -> None:
        self._decoder = decoder
        self.cache = decoder.cache(1, room)
        self._last: list[int] = []
        self._logits: NDArray[np.float32] | None = None

    def read(self, prompt: list[int]) -> NDArray[np.float32]:
        """Return the logits after a prompt, whose keys and values are in `cache` then."""
        if self._logits is None or prompt != self._last:
            known = reusable(self._last, prompt)
            self._last = prompt
            self._logits = self._decoder.step([prompt[known:]], [known], self.cache)[0]
        return self._logits


class Batch:
    """Sequences of any lengths, of which each reads one token a step; one that ends makes room for another."""

    def __init__(self, decoder: Decoder, room: int, most: int) -> None:
        """Begin with none.

        Args:
            decoder: reads them.
            room: tokens of the longest one.
            most: how many there will be at all.
        """
        self._decoder = decoder
        affordable = max(2, _CACHE_BYTES // (room * decoder.bytes_a_token))
        self._cache = decoder.cache(min(_MOST_SLOTS, affordable, most), room)
        self._sequences: list[Sequence] = []
        self._done: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences) + len(self._done)

    def has_room(self, count: int) -> bool:
        """Say whether so many more can be added."""
        return len(self._sequences) + count <= self._cache.slots

    def add(self, sequence: Sequence, prompts: Prompts) -> None:
        """Read a sequence's prompt and add it."""
        sequence.take(prompts.read(sequence.prompt))
        if sequence.is_done:
            self._done.append(sequence)
            return
        self._cache.copy(prompts.cache, 0, len(self._sequences), sequence.length)
        self._sequences.append(sequence)

    def step(self) -> list[Sequence]:
        """Read the next token of each, and return those that are done and have left."""
        if self._sequences:
            tokens = [[sequence.next_token] for sequence in self._sequences]
            logits = self._decoder.step(tokens, [sequence.length for sequence in self._sequences], self._cache)
            for sequence, following in zip(self._sequences, logits, strict=True):
                sequence.take(following)
        for slot in reversed(range(len(self._sequences))):
            if self._sequences[slot].is_done:
                self._leave(slot)
        done, self._done = self._done, []
        return done

    def _leave(self, slot: int) -> None:
        """Let the last one take the place of one that is done, so that the places in use are the first."""
        last = self._sequences.pop()
        if slot == len(self._sequences):
            self._done.append(last)
            return
        self._done.append(self._sequences[slot])
        self._cache.copy(self._cache, len(self._sequences), slot, last.length)
        self._sequences[slot] = last


def reusable(last: list[int], prompt: list[int]) -> int:
    """Return how many tokens of the prompt before can be kept so that every number stays what it would be without.

    The kernels for quantised weights take the rows of a product in tiles of 128, and a tile of a single row is computed
    by another kernel, which rounds otherwise (ONNX Runtime 1.31; a test reads prompts both ways). So no row may be
    alone in its tile here that is not alone when the whole prompt is read, nor the other way.
    """
    pairs = enumerate(zip(last[:-1], prompt[:-1], strict=False))
    common = next((place for place, (old, new) in pairs if old != new), min(len(last), len(prompt)) - 1)
    if common <= 1 or len(prompt) % _TILE_ROWS == 1:
        return 0
    return common - 1 if (len(prompt) - common) % _TILE_ROWS == 1 else common
