"""From token ids to the tensors of one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.training.loop.examples import Example

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """B padded rows of T tokens, N of which are answers.

    Attributes:
        ids: (B, T) token ids; padding is masked by position, so its id does not matter.
        attended: (B, T) 1 where there is a token.
        wanted: (B, T) True at the tokens before an answer's token: where the logits are computed.
        targets: (N,) the answers' tokens.
        rows: (N,) the row each of them is of.
    """

    ids: "torch.Tensor"
    attended: "torch.Tensor"
    wanted: "torch.Tensor"
    targets: "torch.Tensor"
    rows: "torch.Tensor"


def collate(examples: Sequence[Example], device: "torch.device") -> Batch:
    """Pad prompts with their answers on the right to the longest of them."""
    import torch

    sequences = [(example.prompt_ids, example.answer_ids) for example in examples]
    longest = max(len(prompt) + len(answer) for prompt, answer in sequences)
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    attended, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(sequences):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        attended[row, :end] = 1
        wanted[row, start - 1 : end - 1] = True
    targets = torch.tensor([token for _, answer in sequences for token in answer])
    rows = torch.repeat_interleave(torch.arange(len(sequences)), torch.tensor([len(answer) for _, answer in sequences]))
    return Batch(*(tensor.to(device) for tensor in (ids, attended, wanted, targets, rows)))
