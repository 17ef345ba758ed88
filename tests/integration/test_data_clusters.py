"""The data stage over the workers of a real Ray and a real Dask cluster on this machine: the same data version."""

import json
from dataclasses import replace

import pytest

from tasks.contracts.config import DataSection
from tasks.contracts.errors import DataError
from tasks.contracts.home import Home
from tasks.contracts.source_config import FilesSource
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.ingest import Place, ingest

pytestmark = pytest.mark.integration


@pytest.fixture
def sources(tmp_path):
    """Three files of rows; every fifth row of a file stands in the next one too."""
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.jsonl"
        rows = [{"instruction": f"Question {n} about topic {n * n}", "output": f"Answer {n}"} for n in range(40)]
        shared = rows[:: 5 + number]
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[number * 10 :], *shared]))
        made.append(FilesSource(path=str(path)))
    return tuple(made)


def build(sources, place, **execution):
    data = DataSection(sources=sources, train_rows=500, execution=execution)
    return build_dataset(ingest(data, place, sources), None, data, place)


@pytest.fixture(scope="module")
def ray_cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield {"kind": "ray", "address": ray.get_runtime_context().gcs_address}
    ray.shutdown()


@pytest.fixture(scope="module")
def dask_cluster():
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield {"kind": "dask", "address": cluster.scheduler_address}


@pytest.fixture(params=["ray_cluster", "dask_cluster"])
def cluster(request):
    return request.getfixturevalue(request.param)


def test_a_cluster_makes_the_same_version_as_one_process(sources, tmp_path, cluster):
    place = Place(Home(tmp_path / "home"), Store(tmp_path / "here"))
    expected = build(sources, place, processes=1)
    made = build(sources, replace(place, store=Store(tmp_path / "there")), **cluster)
    assert (made.digest, made.rejected) == (expected.digest, expected.rejected)
    assert made.rejected["exact duplicate"] > 10


def test_what_fails_on_a_worker_is_the_same_sentence_here(sources, tmp_path, cluster):
    place = Place(Home(tmp_path / "home"), Store(tmp_path / "there"))
    refuse = {"step": "personal", "action": "block", "patterns": {"TOPIC": "topic [0-9]+"}}
    data = DataSection(sources=sources, execution=cluster, cleaning=[refuse])
    with pytest.raises(DataError, match=r"TOPIC"):
        build_dataset(ingest(data, place, sources), None, data, place)
