"""Jobs over processes: the same results in the same order, wherever they ran."""

import pytest

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import DataError
from tasks.data.execution import executors
from tasks.data.execution.executors import run_jobs
from tasks.data.execution.jobs import largest_first


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


def test_the_largest_job_is_begun_first_and_none_is_forgotten():
    assert largest_first([1, 100, 60, 100, 2]) == [1, 3, 2, 4, 0]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_jobs(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    finished = []
    jobs = chunk_jobs(tmp_path, [3, 1, 2])
    execution = ExecutionSection(processes=processes)
    results = run_jobs(
        *("tasks.data.chunk:clean_chunk", jobs, [3, 1, 2], execution, tmp_path / "log"),
        lambda *facts: finished.append(facts),
    )
    assert [result["kept"] for result in results] == [3, 1, 2]
    assert [count for count, _, _ in finished] == [1, 2, 3]
    assert {number: result["kept"] for _, number, result in finished} == {0: 3, 1: 1, 2: 2}


@pytest.mark.slow
def test_a_job_that_fails_in_its_process_fails_the_run_with_its_own_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    jobs = chunk_jobs(tmp_path, [1, 1])
    jobs[1]["rows"] = str(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        run_jobs("tasks.data.chunk:clean_chunk", jobs, [1, 1], ExecutionSection(processes=2), tmp_path / "log", print)
