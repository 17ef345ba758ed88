"""A training process finds the others: accelerate sets its device and connects it."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from tasks.contracts.worker import speak_of_errors_only
from tasks.training.distributed.group import ALONE, Group

LAUNCHER = "LLM_RETRAIN_LAUNCHER"
"""Environment: the process id of the launcher that started this process as one of several."""
ON_CPU = "ACCELERATE_USE_CPU"
"""Environment: "true" if no GPU is used; accelerate's own name."""
LOST_PEER = 75
"""Exit status of a process that ended because another one did; the launcher looks for that one."""

_LONGEST_WAIT = timedelta(hours=2)
"""The main process plans and writes checkpoints alone: 840 GB where 70 billion weights are fully trained. NCCL's own 10
minutes would end the others, which wait for it."""

_LOST_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "gloo")


@contextmanager
def joined() -> Iterator[Group]:
    """Be one of the processes that a launcher started, or alone.

    Raises:
        SystemExit: the launcher has gone, or another process of the group has, whose end is its own to explain.
    """
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        yield ALONE
        return
    if os.getppid() != int(launcher):  # it was killed before this process could ask to be told
        raise SystemExit(LOST_PEER)
    group = _connect()
    if not group.is_main:
        speak_of_errors_only()
    try:
        yield group
    except Exception as error:
        if not lost_a_peer(error):
            raise
        traceback.print_exception(error)
        sys.stderr.flush()
        raise SystemExit(LOST_PEER) from error
    from torch import distributed

    distributed.destroy_process_group()


def _connect() -> Group:
    from accelerate import PartialState

    state = PartialState(cpu=os.environ[ON_CPU] == "true", timeout=_LONGEST_WAIT)
    assert state.num_processes == int(os.environ["WORLD_SIZE"]), "accelerate has not connected the processes"
    nodes = state.num_processes // int(os.environ["LOCAL_WORLD_SIZE"])
    return Group(state.process_index, state.num_processes, nodes, device=str(state.device))


def lost_a_peer(error: BaseException) -> bool:
    """Say whether an error means that another process has gone; gloo raises a plain RuntimeError for that."""
    from torch import distributed

    if isinstance(error, distributed.DistBackendError | distributed.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST_SIGNS)
