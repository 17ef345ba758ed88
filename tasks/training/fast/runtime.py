"""Settings of the C runtimes under PyTorch, for a process that trains and ends."""

import ctypes
import os
import sys

SPIN_COUNT = "3000"
"""How often a waiting thread of GNU OpenMP looks before it sleeps. Its own count is a hundred times that, and a thread
burns all of it at each of thousands of operations a step when something else runs on the other core (DECISIONS.md)."""
KEPT_PRODUCTS = 256
"""For how many shapes of matrix products oneDNN keeps the code that it made. Its own count is four times that: 0.7 MB
each, and where rows have many lengths nearly every step brings new ones (DECISIONS.md)."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_NEVER_TRIM_BYTES = 2**31 - 1
LARGEST_FROM_HEAP_BYTES = 32 << 20
"""What is larger comes from the kernel and goes back to it; glibc refuses a higher bound."""
TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.arena_max=1"
"""Free pieces of any size join their neighbours at once. PyTorch asks for aligned blocks, beside which pieces of up to
64 bytes are left; glibc keeps such pieces for themselves, a block that is freed between two of them is too small for
the next one of its own size, and the heap grows: by half a step's tensors and more. One arena: what the threads that
load weights have freed would otherwise be of no use to the step (DECISIONS.md)."""

_STARTED_AGAIN = "LLM_RETRAIN_STARTED_AGAIN"
"""Once only: glibc takes its settings out of the environment of a process with rights of its own."""


def prepare_runtime() -> None:
    """Make waiting and allocating cheap; call it first in a process of its own, which may begin anew with it.

    OpenMP reads its settings when torch is imported, glibc when a process starts: without them, this one starts again
    in its own place, with the same arguments. What the user has set in OMP_WAIT_POLICY, GOMP_SPINCOUNT,
    ONEDNN_PRIMITIVE_CACHE_CAPACITY and GLIBC_TUNABLES stays, but for the two thresholds of `keep_freed_memory`.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_PRODUCTS))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if keep_freed_memory() and sys.executable and _STARTED_AGAIN not in os.environ:
        os.environ |= {"GLIBC_TUNABLES": _beside(os.environ.get("GLIBC_TUNABLES", "")), _STARTED_AGAIN: "1"}
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very command that runs


def _beside(own: str) -> str:
    """Return the user's settings of glibc, and those of ours that they leave open."""
    names = {setting.partition("=")[0] for setting in own.split(":")}
    ours = [setting for setting in TUNABLES.split(":") if setting.partition("=")[0] not in names]
    return ":".join([*filter(None, [own]), *ours])


def keep_freed_memory() -> bool:
    """Tell glibc to give nothing back to the kernel and to serve up to 32 MB from the heap; say whether it did.

    Otherwise a step's activations go back at its end and the kernel clears their pages for the next one: 39,000 page
    faults an optimizer step became 9,000 (DECISIONS.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER_TRIM_BYTES) and mallopt(_MMAP_THRESHOLD, LARGEST_FROM_HEAP_BYTES))
