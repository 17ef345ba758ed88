"""Freed memory stays with the process: a training step frees and asks for the same gigabyte again and again."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_NEVER_TRIM_BYTES = 2**31 - 1
_LARGEST_FROM_HEAP_BYTES = 32 << 20  # glibc refuses more


def keep_freed_memory() -> bool:
    """Tell glibc to give nothing back to the kernel and to serve up to 32 MB from the heap; say whether it did.

    Otherwise each large tensor is mapped and unmapped, and the kernel clears its pages each time: 39,000 page faults
    an optimizer step became 9,000 (DECISIONS.md). For a process that trains and ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER_TRIM_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP_BYTES))
