"""Jobs over real worker processes: who takes which, and that none is left when one fails or the caller is stopped."""

import _thread
import ctypes
import signal
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from tasks.contracts.config import ExecutionSection
from tasks.contracts.errors import ConfigError, DataError, StoreError
from tasks.data.execution import executors
from tasks.data.execution.executors import run_jobs

JOBS = """
import os, signal, time
from pathlib import Path
from tasks.contracts.errors import ConfigError, DataError, StoreError

def answer(job):
    return {"answer": job["n"] * 2, "process": os.getpid()}

def wait_for_the_others(job):
    '''The first job ends when the others are done: somebody else has to do them all.'''
    folder = Path(job["folder"])
    end = time.monotonic() + 30
    while job["n"] == 0 and len(list(folder.iterdir())) < job["others"]:
        assert time.monotonic() < end, "the other process did not take the other jobs"
        time.sleep(0.01)
    (folder / str(job["n"])).touch()
    return {"process": os.getpid()}

def slow(job):
    Path(job["folder"], f"pid-{os.getpid()}").touch()
    time.sleep(600)

def slow_or_failing(job):
    if job["n"] == 0:
        slow(job)
    while not list(Path(job["folder"]).glob("pid-*")):
        time.sleep(0.01)
    {"data": data, "config": config, "store": store, "python": python, "killed": killed, "silent": silent}[job["how"]]()

def data():
    raise DataError("data.sources names 'x', which is no good")

def config():
    raise ConfigError("data.cleaning names 'y', which is no good")

def store():
    raise StoreError("the store is full")

def python():
    raise KeyError("no such thing")

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def silent():
    os._exit(0)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a function of `JOBS` on so many jobs in two processes."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "some_jobs.py").write_text(textwrap.dedent(JOBS))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=":")
    monkeypatch.setattr(executors, "SMALL_BYTES", 0)
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(function, count, done=lambda *_: None, **facts):
        jobs = [{"n": number, "folder": str(folder), **facts} for number in range(count)]
        execution = ExecutionSection(processes=2)
        return run_jobs(f"some_jobs:{function}", jobs, [1] * count, execution, tmp_path / "log", done)

    run.folder = folder
    return run


def workers_left():
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "tasks.data.execution.process" in child.cmdline()
    ]


def wait_for_workers(folder, count=1):
    end = time.monotonic() + 30
    while len(list(folder.glob("pid-*"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_free_process_takes_the_next_job_however_long_the_other_one_is_at_work(run):
    results = run("wait_for_the_others", 6, others=5)
    assert len({result["process"] for result in results[1:]}) == 1
    assert results[0]["process"] != results[1]["process"]


def test_results_have_the_order_of_the_jobs_and_are_told_in_the_callers_thread(run):
    told, threads = {}, set()

    def done(finished, number, result):
        assert finished == len(told) + 1
        told[number] = result["answer"]
        threads.add(threading.get_ident())

    assert [result["answer"] for result in run("answer", 7, done)] == [0, 2, 4, 6, 8, 10, 12]
    assert told == {number: number * 2 for number in range(7)}
    assert threads == {threading.get_ident()}
    assert workers_left() == []


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("data", DataError, r"^data\.sources names 'x', which is no good$"),
        ("config", ConfigError, r"^data\.cleaning names 'y', which is no good$"),
        ("store", StoreError, r"^the store is full$"),
        ("python", DataError, r"^tasks\.data\.execution\.process failed with KeyError: 'no such thing' \(log: "),
        ("killed", DataError, r"was killed \(SIGKILL\), .* lower data\.execution\.processes \(log: "),
        ("silent", DataError, r"^tasks\.data\.execution\.process ended before its job was done \(log: "),
    ],
)
def test_a_failure_keeps_its_class_and_sentence_and_ends_the_others_at_once(run, how, error, sentence):
    started = time.monotonic()
    with pytest.raises(error, match=sentence) as caught:
        run("slow_or_failing", 2, how=how)
    assert type(caught.value) is error
    # The other job takes ten minutes; a worker that must be killed takes ten seconds.
    assert time.monotonic() - started < 9
    assert workers_left() == []


def test_what_the_caller_raises_when_a_job_is_done_ends_the_workers(run):
    def done(*_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run("wait_for_the_others", 5, done, others=99)
    assert workers_left() == []


@pytest.fixture
def heeds_interrupts():
    """Take SIGINT as at a terminal; a shell without job control starts what runs in the background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_of_the_main_thread_ends_the_workers(run):
    def interrupt():
        wait_for_workers(run.folder, 2)
        _thread.interrupt_main()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        run("slow", 3)
    interrupting.join()
    assert workers_left() == []


class _Cancelled(BaseException):
    pass


def test_a_cancel_of_another_thread_as_prefect_does_it_ends_the_workers(run):
    """Prefect cannot interrupt a thread that waits; it sets an exception, raised when the thread runs again."""
    raised = []

    def work():
        try:
            run("slow", 3)
        except BaseException as error:
            raised.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    wait_for_workers(run.folder, 2)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Cancelled))
    thread.join(timeout=20)
    assert raised == [_Cancelled]
    assert workers_left() == []


def test_what_a_worker_prints_goes_to_the_log(run, tmp_path):
    with pytest.raises(DataError):
        run("slow_or_failing", 2, how="python")
    assert "in python" in Path(tmp_path / "log").read_text()
