"""The processes that train together, as one of them sees them; alone, everything here costs nothing.

What is exchanged is numbers and the bytes of tensors, never pickled objects.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_BUCKET_BYTES = 64 << 20
"""Gradients travel in parts of this size: large enough for the network, small beside the model."""


@dataclass(frozen=True)
class Group:
    """The processes of a training, and which of them this one is.

    Attributes:
        rank: this process's number among all; 0 says events and writes files.
        size: processes in all.
        nodes: machines that they run on.
        sharded: each holds a part of every weight (FSDP), and all call the model in step.
        device: where what is exchanged has to lie, such as "cpu" or "cuda:1".
    """

    rank: int = 0
    size: int = 1
    nodes: int = 1
    sharded: bool = False
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process says events and writes files."""
        return self.rank == 0

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Add numbers up over the processes; each gets the same sums, bit by bit."""
        if self.size == 1:
            return list(numbers)
        import torch
        from torch import distributed

        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total.tolist()]

    def add_up(self, tensors: "Sequence[torch.Tensor]") -> None:
        """Replace tensors of one dtype by their sums over the processes, in few large messages."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        sent = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket]).to(self.device)
            sent.append((bucket, flat, distributed.all_reduce(flat, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def turns(self, count: int) -> "Iterator[tuple[int, bool]]":
        """Divide `count` things: yield this process's, and whether they count.

        All processes take as many turns, because sharded ones must; who has nothing left repeats a thing.
        """
        for turn in range(-(-count // self.size)):
            mine = turn * self.size + self.rank
            yield min(mine, count - 1), mine < count

    def share(self, tensor: "torch.Tensor") -> None:
        """Overwrite a tensor with the main process's."""
        if self.size == 1:
            return
        from torch import distributed

        sent = tensor.detach().contiguous().to(self.device)
        distributed.broadcast(sent, src=0)
        if sent.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(sent)

    def share_facts(self, facts: Any) -> Any:
        """Return the main process's JSON facts; what others pass is ignored."""
        return json.loads(self.share_bytes(json.dumps(facts).encode() if self.is_main else b""))

    def share_bytes(self, content: bytes) -> bytes:
        """Return the main process's bytes; what others pass is ignored."""
        if self.size == 1:
            return content
        import torch

        length = torch.tensor([len(content)], dtype=torch.int64)
        self.share(length)
        flat = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_main and content:
            flat.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.share(flat)
        return flat.numpy().tobytes()

    def wait(self) -> None:
        """Wait until every process is here."""
        self.sum([0.0])

    def reseed(self, seed: int, step: int) -> None:
        """Give every process but the main one random numbers of its own for a step, or all would drop out the same.

        They follow from seed, step and rank alone, so that a resumed run draws the same.
        """
        if self.is_main:
            return
        import torch

        torch.manual_seed((seed * 1_000_003 + step) * 4_099 + self.rank)


ALONE = Group()


def _buckets(tensors: "Sequence[torch.Tensor]") -> "Iterator[list[torch.Tensor]]":
    sizes = itertools.accumulate(tensor.numel() * tensor.element_size() for tensor in tensors)
    numbered = zip(sizes, tensors, strict=True)
    for _, bucket in itertools.groupby(numbered, key=lambda each: each[0] // _BUCKET_BYTES):
        yield [tensor for _, tensor in bucket]
