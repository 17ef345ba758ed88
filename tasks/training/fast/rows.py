"""Rows of a batch as one sequence without padding, their common beginning once.

Rows that start alike (a system prompt, an instruction) have the same hidden states there, because a causal model looks
back only. The common tokens are therefore computed once, as a row of their own that all others look back at.

A product of a shape that was not there before costs milliseconds and megabytes, as its code is made then. Sequences are
therefore filled up to round lengths, with tokens behind the rows' ends that nothing looks at: their gradients are zero.

Shapes: M tokens in the sequence, those that fill it up last; B rows, the common beginning counted as the first; P
tokens of the common beginning; T places for the longest row without it; N targets; K ≥ N tokens that leave the last
layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.training.loop.examples import Example

if TYPE_CHECKING:
    import torch

LEAST_SHARED_TOKENS = 8
"""A shorter common beginning is left in the rows: as a row of its own it would cost attention more than it saves."""

KEYS_MULTIPLE = 32
"""Rows are padded within attention so that P + T is a multiple of this: the softmax of 128 bf16 scores takes half the
time of that of 125, and so do the products beside it (DECISIONS.md)."""

TOKENS_MULTIPLE = 64
"""Sequences, and what leaves the last layer, are filled up to a multiple of this (DECISIONS.md)."""


@dataclass(frozen=True)
class PackedRows:
    """A batch in one sequence.

    Attributes:
        ids: (M,) tokens.
        positions: (M,) their places in their rows.
        shared_tokens: P; 0 when nothing is shared.
        to_padded: (B·T,) the token that stands in each place of the padded batch; 0 in places without one.
        from_padded: (M,) the place of each token in the padded batch.
        hidden_keys: (B, T, P + T) what a token must not look at.
        leaving: (K,) the tokens that leave the last layer: first those before the targets, then any others.
        targets: (K,) the answers' tokens; 0 after the first N.
        row_of_target: (N,) which example of the batch each target belongs to.
    """

    ids: "torch.Tensor"
    positions: "torch.Tensor"
    shared_tokens: int
    to_padded: "torch.Tensor"
    from_padded: "torch.Tensor"
    hidden_keys: "torch.Tensor"
    leaving: "torch.Tensor"
    targets: "torch.Tensor"
    row_of_target: "torch.Tensor"

    def to(self, device: "torch.device") -> "PackedRows":
        """Return the batch on a device."""
        return replace(self, **{name: t.to(device) for name, t in vars(self).items() if name != "shared_tokens"})


def common_start(batch: Sequence[Example]) -> int:
    """Return how many first tokens all prompts share, without the last token of any: that one predicts an answer."""
    prompts = [example.prompt_ids for example in batch]
    first, last = min(prompts), max(prompts)  # what the smallest and the largest share, all between them share
    limit = min(len(prompt) for prompt in prompts) - 1
    shared = 0
    while shared < limit and first[shared] == last[shared]:
        shared += 1
    return shared


def shared_start(batch: Sequence[Example]) -> int:
    """Return P: the common start, if it is shared."""
    shared = common_start(batch)
    return shared if shared >= LEAST_SHARED_TOKENS and len(batch) > 1 else 0


def packed_tokens(batch: Sequence[Example]) -> int:
    """Return how many tokens a batch has in one sequence, before it is filled up."""
    shared = shared_start(batch)
    return shared + sum(len(example) - shared for example in batch)


def attention_scores(batch: Sequence[Example]) -> int:
    """Return B·T·(P + T): the scores of one head, padding included."""
    shared = shared_start(batch)
    keys = _padded_keys(max(shared, *(len(example) - shared for example in batch)), shared)
    return (len(batch) + bool(shared)) * (keys - shared) * keys


def _padded_keys(longest: int, shared: int) -> int:
    """Return P + T, where the longest row has so many tokens beside those that are shared."""
    return -(-(longest + shared) // KEYS_MULTIPLE) * KEYS_MULTIPLE


def pack_rows(batch: Sequence[Example]) -> PackedRows:
    """Lay a batch out in one sequence; a common beginning is shared if that pays."""
    import torch

    shared = shared_start(batch)
    rows = [(example.prompt_ids + example.answer_ids)[shared:] for example in batch]
    start = [batch[0].prompt_ids[:shared]] if shared else []
    lengths = torch.tensor([len(row) for row in (*start, *rows)])
    firsts = lengths.cumsum(0) - lengths
    longest = _padded_keys(int(lengths.max()), shared) - shared
    places = torch.arange(longest).expand(len(lengths), longest)
    filled = places < lengths[:, None]
    positions = places[filled]
    positions[len(start[0]) if start else 0 :] += shared
    tokens = len(positions)
    # Behind the ends of rows, where a causal mask lets no token of theirs look; there may be too few such places.
    behind = (~filled).flatten().nonzero().squeeze(1)[: -tokens % TOKENS_MULTIPLE]
    to_padded = torch.where(filled, firsts[:, None] + places, 0).flatten()
    to_padded[behind] = torch.arange(tokens, tokens + len(behind))
    predicting, targets, owners = _targets(batch, shared, firsts[len(start) :].tolist())
    others = torch.ones(tokens + len(behind), dtype=torch.bool).index_fill_(0, predicting, False).nonzero().squeeze(1)
    others = others[: -len(predicting) % TOKENS_MULTIPLE]
    return PackedRows(
        ids=_filled_up(torch.tensor([token for row in (*start, *rows) for token in row]), behind),
        positions=_filled_up(positions, behind),
        shared_tokens=shared,
        to_padded=to_padded,
        from_padded=torch.cat([filled.flatten().nonzero().squeeze(1), behind]),
        hidden_keys=_hidden_keys(len(lengths), longest, shared),
        leaving=torch.cat([predicting, others]),
        targets=_filled_up(targets, others),
        row_of_target=owners,
    )


def _filled_up(numbers: "torch.Tensor", like: "torch.Tensor") -> "torch.Tensor":
    """Return numbers with a zero more for each of `like`."""
    import torch

    return torch.cat([numbers, torch.zeros_like(like)])


def _targets(
    batch: Sequence[Example], shared: int, firsts: list[int]
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    import torch

    predicting: list[int] = []
    owners: list[int] = []
    for number, (example, first) in enumerate(zip(batch, firsts, strict=True)):
        before = first + len(example.prompt_ids) - shared - 1
        predicting.extend(range(before, before + len(example.answer_ids)))
        owners.extend([number] * len(example.answer_ids))
    targets = [token for example in batch for token in example.answer_ids]
    return torch.tensor(predicting), torch.tensor(targets), torch.tensor(owners)


def _hidden_keys(rows: int, longest: int, shared: int) -> "torch.Tensor":
    """Return the causal mask; rows see all of the common beginning, which sees itself among its own keys only.

    Keys in places without a token need no mask: they come after all tokens of their row.
    """
    import torch

    hidden = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    hidden = torch.cat([torch.zeros(longest, shared, dtype=torch.bool), hidden], dim=1).repeat(rows, 1, 1)
    if shared:
        hidden[0, :, :shared] = True
    return hidden
