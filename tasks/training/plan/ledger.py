"""Counts the bytes and the operations of a computation on tensors that have no bytes.

On torch's meta device an operation gives a tensor's shape and dtype and computes nothing. The ledger stands below
autograd and sees every operation of the forward and the backward pass, of any model and any method: what it adds up is
what the same computation would have in memory, tensor by tensor, and when.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tasks.training.fast.runtime import LARGEST_FROM_HEAP_BYTES

_FLASH = 1
"""torch.nn.attention.SDPBackend.FLASH_ATTENTION: the one fused kernel that a CPU has."""

Namer = Callable[[torch.Tensor], str]


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the living tensors by kind, their peak, and the operations, while it is entered.

    `most_small` and `most_large` are the peaks of tensors below and from `large_bytes` on, each of its own moment.
    """

    def __init__(self, name: Namer, large_bytes: int = LARGEST_FROM_HEAP_BYTES) -> None:
        """Begin with nothing; `name` says the kind of a new tensor."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.living: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self.most_small = self.most_large = 0
        self._large_bytes = large_bytes
        self._large = 0
        self.flops: Counter[str] = Counter()
        self.moved_bytes = self.calls = 0
        self.products: set[tuple[Any, ...]] = set()
        self._name = name
        self._picked_places = 0
        self._fixed_kind = ""
        self._known: dict[int, tuple[Any, str, int]] = {}

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were alive at a time."""
        return sum(self.at_peak.values())

    def begin_peaks(self) -> None:
        """Look for the peaks from now on."""
        self.at_peak = self.living.copy()
        self.most_small, self.most_large = self.living.total() - self._large, self._large

    @contextmanager
    def all_of(self, kind: str) -> Iterator[None]:
        """Count what is made in the block as of one kind."""
        before, self._fixed_kind = self._fixed_kind, kind
        try:
            yield
        finally:
            self._fixed_kind = before

    def add(self, tensor: torch.Tensor, kind: str = "") -> None:
        """Count a tensor until it is freed; a view of a known one has no bytes of its own."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size, kind = storage.nbytes(), kind or self._fixed_kind or self._name(tensor)
        self._known[key] = (weakref.ref(storage, lambda _: self._forget(key)), kind, size)
        self.living[kind] += size
        total = self.living.total()
        if total > self.at_peak.total():
            self.at_peak = self.living.copy()
        if size >= self._large_bytes:
            self._large += size
            self.most_large = max(self.most_large, self._large)
        self.most_small = max(self.most_small, total - self._large)

    def _forget(self, key: int) -> None:
        _, kind, size = self._known.pop(key)
        self.living[kind] -= size
        if size >= self._large_bytes:
            self._large -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Give an operation's shapes, and write down what it makes and costs."""
        kwargs = kwargs or {}
        name = func.overloadpacket._qualified_op_name
        if (
            name == "aten::_local_scalar_dense" and args[0].device.type == "meta"
        ):  # `item()`: is every place attended? what is the norm?
            return False if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
        if name == "aten::_fused_sdp_choice":
            return _FLASH
        if name == "bitsandbytes::gemm_4bit" and args[0].device.type == "meta":
            with self:
                return _unpacked_product(*args)
        if name == "aten::_to_copy" and args[0].dtype == torch.bool and args[0].device.type == "cpu":
            self._picked_places = int(args[0].sum())  # a mask on its way to the meta device, where it says no more
        result = self._picked(args) if name == "aten::index" else None
        if result is None:
            result = func(*args, **kwargs)
        self._count_flops(func, args, kwargs, result)
        known, moved = len(self._known), 0
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                self.add(tensor)
                moved += tensor.nbytes
        if len(self._known) > known or func._schema.is_mutable:  # not a view
            self.calls += 1
            self.moved_bytes += moved
        return result

    def forget_costs(self) -> None:
        """Count operations anew; the bytes that live go on."""
        self.flops.clear()
        self.products.clear()
        self.moved_bytes = self.calls = 0

    def _picked(self, args: Any) -> "torch.Tensor | None":
        source, (mask, *others) = args[0], args[1]
        if others or mask is None or mask.dtype != torch.bool or source.device.type != "meta":
            return None
        picked: torch.Tensor = source.new_empty((self._picked_places, *source.shape[mask.ndim :]))
        return picked

    def _count_flops(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            first = result[0] if isinstance(result, tuple) else result
            kind = "attention" if func.overloadpacket is not torch.ops.aten.mm and first.ndim > 2 else self._name(first)
            self.flops[kind] += formula(*args, **kwargs, out_val=result)
            shapes = [(*each.shape, *each.stride()) for each in args if isinstance(each, torch.Tensor)]
            self.products.add((func, *shapes))


def _unpacked_product(*arguments: Any) -> torch.Tensor:
    """Multiply by 4-bit weights as bitsandbytes does where it has no kernel of its own: unpack, then multiply."""
    given: list[Any] = [*arguments, None, None]
    rows, packed, shape, absmax, block, kind, bias, packed_scales, *_ = given
    if packed_scales is not None:
        absmax = torch.empty(packed_scales.shape, dtype=torch.float32, device="meta")
    weight = torch.ops.bitsandbytes.dequantize_4bit.default(packed, absmax, block, kind, shape, rows.dtype)
    return torch.nn.functional.linear(rows, weight, bias)
