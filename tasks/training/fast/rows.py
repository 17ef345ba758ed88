"""Rows of a batch as one sequence without padding, their common beginning once.

Rows that start alike (a system prompt, an instruction) have the same hidden states there, because a causal model looks
back only. The common tokens are therefore computed once, as a row of their own that all others look back at.

Shapes: M tokens in the sequence; B rows, the common beginning counted as the first; P tokens of the common beginning;
T places for the longest row without it; N targets.
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
        predicting: (N,) the tokens before the targets.
        targets: (N,) the answers' tokens.
        row_of_target: (N,) which example of the batch each target belongs to.
    """

    ids: "torch.Tensor"
    positions: "torch.Tensor"
    shared_tokens: int
    to_padded: "torch.Tensor"
    from_padded: "torch.Tensor"
    hidden_keys: "torch.Tensor"
    predicting: "torch.Tensor"
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


def pack_rows(batch: Sequence[Example]) -> PackedRows:
    """Lay a batch out in one sequence; a common beginning is shared if that pays."""
    import torch

    shared = common_start(batch)
    if shared < LEAST_SHARED_TOKENS or len(batch) < 2:
        shared = 0
    rows = [(example.prompt_ids + example.answer_ids)[shared:] for example in batch]
    start = [batch[0].prompt_ids[:shared]] if shared else []
    lengths = torch.tensor([len(row) for row in (*start, *rows)])
    firsts = lengths.cumsum(0) - lengths
    longest = -(-(int(lengths.max()) + shared) // KEYS_MULTIPLE) * KEYS_MULTIPLE - shared
    places = torch.arange(longest).expand(len(lengths), longest)
    filled = places < lengths[:, None]
    positions = places[filled]
    positions[len(start[0]) if start else 0 :] += shared
    predicting, targets, owners = _targets(batch, shared, firsts[len(start) :].tolist())
    return PackedRows(
        ids=torch.tensor([token for row in (*start, *rows) for token in row]),
        positions=positions,
        shared_tokens=shared,
        to_padded=torch.where(filled, firsts[:, None] + places, 0).flatten(),
        from_padded=filled.flatten().nonzero().squeeze(1),
        hidden_keys=_hidden_keys(len(lengths), longest, shared),
        predicting=predicting,
        targets=targets,
        row_of_target=owners,
    )


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
