"""The data stage over the workers of a real Ray and a real Dask cluster on this machine: the same data version."""

import json
from dataclasses import replace

import psutil
import pytest

from tasks.contracts.config import DataSection, ExecutionSection
from tasks.contracts.errors import ConfigError, DataError, EnvironmentProblem
from tasks.contracts.home import Home
from tasks.contracts.source_config import FilesSource
from tasks.contracts.store import Store
from tasks.data.build import build_dataset
from tasks.data.execution import executors
from tasks.data.execution.executors import run_jobs
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


def failure_of(execution, tmp_path, work, *jobs):
    """Return what running jobs raises; the functions are any that a worker can import."""
    with pytest.raises((ConfigError, EnvironmentProblem, DataError)) as caught:
        run_jobs(work, list(jobs), [1] * len(jobs), ExecutionSection(**execution), tmp_path / "log", lambda *_: None)
    return caught.value


def test_a_failure_on_a_worker_keeps_its_class(tmp_path, cluster):
    failure = failure_of(cluster, tmp_path, "tasks.contracts.config:validate_config", {"daata": {}})
    assert type(failure) is ConfigError
    assert "daata" in str(failure)


def test_a_state_directory_that_a_worker_does_not_see_is_said(tmp_path, cluster):
    missing = str(tmp_path / "not-here" / "rows.jsonl")
    failure = failure_of(cluster, tmp_path, "os:stat", missing)
    assert type(failure) is EnvironmentProblem
    assert missing in str(failure)
    assert cluster["address"] in str(failure)
    assert "expected the state directory" in str(failure)


def test_another_version_on_a_worker_is_refused_and_named(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(executors, "versions_here", lambda: {"Python": "3.9", "llm-retrain code": "0"})
    failure = failure_of(cluster, tmp_path, "os:stat", str(tmp_path))
    assert type(failure) is EnvironmentProblem
    assert "has Python 3.11 instead of 3.9 and llm-retrain code " in str(failure)


def test_a_worker_that_dies_again_and_again_is_one_sentence(tmp_path, cluster):
    failure = failure_of(cluster, tmp_path, "os:_exit", 1)
    assert type(failure) is EnvironmentProblem
    assert str(failure).startswith(
        f"the {cluster['kind'].capitalize()} cluster at data.execution.address '{cluster['address']}' failed ("
    )
    assert "check that its workers run, have memory" in str(failure)


@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_of_our_own_is_gone_when_its_jobs_are_stopped(tmp_path, kind, module):
    pytest.importorskip(module)
    before = set(psutil.Process().children(recursive=True))
    started = []

    def stop(*_):
        started.extend(set(psutil.Process().children(recursive=True)) - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execution = ExecutionSection(kind=kind, processes=2)
        run_jobs("time:sleep", [600, 0, 600], [1, 2, 1], execution, tmp_path / "log", stop)
    assert len(started) > 2
    _, left = psutil.wait_procs(started, timeout=15)
    assert left == []
