"""The runtimes under PyTorch are set before it is imported, and a user's own settings are left alone."""

import json
import os
import subprocess
import sys

import pytest

from tasks.training.fast import runtime

_FAULTS = """
import json, os, resource
import tasks.training.fast.runtime as runtime
if {prepared}: runtime.prepare_runtime()
import torch
def step():
    held = [torch.empty(5 << 20, dtype=torch.uint8).fill_(1) for _ in range(40)]  # as activations are
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([faults, *map(os.environ.get, ("GOMP_SPINCOUNT", "GLIBC_TUNABLES"))]))
"""


def told_by(script, prepared, **environment):
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES")
    bare = {key: value for key, value in os.environ.items() if key not in own}
    code = script.format(prepared=prepared)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare | environment
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_memory_that_a_step_frees_is_not_cleared_anew_by_the_kernel():
    # glibc raises its threshold by itself when a large block is freed, and then it depends on what lies above.
    threshold = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 20}"}
    without, *_ = told_by(_FAULTS, prepared=False, **threshold)
    with_it, *_ = told_by(_FAULTS, prepared=True, **threshold)
    assert with_it < without / 10


def test_the_runtimes_get_their_settings_when_the_user_has_none():
    assert told_by(_FAULTS, prepared=True)[1:] == ["3000", runtime.TUNABLES]


_PRODUCTS = """
import json, os
import tasks.training.fast.runtime as runtime
if {prepared}: runtime.prepare_runtime()
print(json.dumps(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY")))
"""


def test_code_of_few_products_is_kept_unless_the_user_wants_more():
    assert told_by(_PRODUCTS, prepared=True) == str(runtime.KEPT_PRODUCTS)
    assert told_by(_PRODUCTS, prepared=True, ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024") == "1024"


@pytest.mark.parametrize(
    ("name", "value", "spins"), [("OMP_WAIT_POLICY", "ACTIVE", None), ("GOMP_SPINCOUNT", "7", "7")]
)
def test_a_users_own_settings_of_openmp_stay(name, value, spins):
    assert told_by(_FAULTS, prepared=True, **{name: value})[1] == spins


def test_a_users_own_settings_of_malloc_stay_beside_the_others():
    own = "glibc.malloc.arena_max=2:glibc.malloc.check=0"
    told = told_by(_FAULTS, prepared=True, GLIBC_TUNABLES=own)[2]
    assert told == f"{own}:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
