"""What tests with real servers need to know: free ports, and whether Triton can run here."""

import os
import socket

import pytest

from tasks.serving.tritonserver import why_triton_cannot_run


def free_ports(count):
    """Return ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def skip_without_triton():
    """Skip where Triton cannot run; `make test` says that it must, and then it is a failure."""
    reason = why_triton_cannot_run()
    if reason is not None:
        if os.environ.get("LLM_RETRAIN_REQUIRE_TRITON"):
            pytest.fail(reason)
        pytest.skip(reason)
