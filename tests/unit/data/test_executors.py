"""Jobs over processes: the same results in the same order, wherever they ran."""

import pytest

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import DataError, EnvironmentProblem
from tasks.data import executors
from tasks.data.executors import run_jobs, shares


def chunk_jobs(tmp_path, rows_each):
    from tasks.data.rows import build_row, row_line

    jobs = []
    for number, rows in enumerate(rows_each):
        path = tmp_path / f"{number}.jsonl"
        messages = [[{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "A"}] for n in range(rows)]
        path.write_bytes(b"".join(row_line(build_row(each, "s", "d")) for each in messages))
        jobs.append(
            {
                "rows": str(path),
                "out": str(tmp_path / f"out{number}"),
                "steps": [],
                "tokenizer": None,
                "min_answer_chars": 1,
                "max_row_chars": 99,
                "erased": [],
                "similarity": 0,
            }
        )
    return jobs


def test_jobs_are_shared_out_by_size_and_none_is_forgotten():
    parts = shares([1, 100, 60, 50, 2], 2)
    assert sorted(job for part in parts for job in part) == [0, 1, 2, 3, 4]
    assert sorted(sum([1, 100, 60, 50, 2][job] for job in part) for part in parts) == [103, 110]


def test_no_process_is_started_for_nothing():
    assert shares([5, 5], 8) == [[0], [1]]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_jobs(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    finished = []
    jobs = chunk_jobs(tmp_path, [3, 1, 2])
    execution = ExecutionSection(processes=processes)
    results = run_jobs("tasks.data.chunk:clean_chunk", jobs, [3, 1, 2], execution, tmp_path / "log", finished.append)
    assert [result["kept"] for result in results] == [3, 1, 2]
    assert finished == [1, 2, 3]


@pytest.mark.slow
def test_a_job_that_fails_in_its_process_fails_the_run_with_its_own_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    jobs = chunk_jobs(tmp_path, [1, 1])
    jobs[1]["rows"] = str(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        run_jobs("tasks.data.chunk:clean_chunk", jobs, [1, 1], ExecutionSection(processes=2), tmp_path / "log", print)


@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_without_its_library_names_the_extra(tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(EnvironmentProblem, match=rf"data\.execution\.kind is '{kind}', which needs: .*\[{kind}\]"):
        run_jobs("tasks.data.chunk:clean_chunk", [{}], [1], ExecutionSection(kind=kind), tmp_path / "log", print)
