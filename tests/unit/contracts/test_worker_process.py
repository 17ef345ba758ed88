"""Worker processes that end well and badly: every way to fail is one sentence in the parent, and nothing hangs."""

import textwrap
import time

import pytest

from tasks.contracts.errors import BuildError
from tasks.contracts.worker import EnoughHeard, WorkerOrder, follow, run_worker


@pytest.fixture
def run_body(tmp_path, monkeypatch):
    """Run a worker whose module holds `before`, and whose `run(spec)` has `body`; its log is `tmp_path/worker.log`."""
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(modules))  # a worker inherits it, and so finds the module by its name
    # A module rewritten within the second, at the same size, would otherwise run from the stale byte code of the first.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(body, before="", spec=None, deadline=None, **settings):
        source = (
            "import os, signal, sys\n"
            "from tasks.contracts.errors import TrainingError\n"
            "from tasks.contracts.worker import say, worker_main\n"
            f"{textwrap.dedent(before)}\n"
            f"def run(spec):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
            "worker_main(run)\n"
        )
        (modules / "a_worker.py").write_text(source)
        log_path = tmp_path / "worker.log"
        if deadline is None:
            return run_worker("a_worker", spec or {}, log_path, BuildError, **settings)
        return follow(WorkerOrder("a_worker", spec or {}, log_path, BuildError, "", **settings), deadline=deadline)

    return run


def test_events_arrive_in_order_and_the_listener_hears_each(run_body):
    heard = []
    events = run_body("say('one', n=spec['n'])\nsay('two', text='é')", spec={"n": 7}, listener=heard.append)
    assert events == [{"event": "one", "n": 7}, {"event": "two", "text": "é"}] == heard


def test_a_sentence_of_our_own_is_passed_on_as_it_is(run_body):
    with pytest.raises(BuildError) as raised:
        run_body("raise TrainingError('training.rank is 0; expected at least 1')")
    assert str(raised.value) == "training.rank is 0; expected at least 1"


def test_any_other_exception_is_one_line_with_its_type_and_the_log_that_has_the_traceback(run_body, tmp_path):
    with pytest.raises(BuildError) as raised:
        run_body("raise KeyError('no such\\nlayer')")
    log_path = tmp_path / "worker.log"
    assert str(raised.value) == f"a_worker failed with KeyError: 'no such\\nlayer' (log: {log_path})"
    with pytest.raises(BuildError) as raised:
        run_body("raise ValueError('two\\n  lines')")
    assert str(raised.value) == f"a_worker failed with ValueError: two lines (log: {log_path})"
    assert "Traceback" in log_path.read_text()


def test_an_exception_while_the_module_is_imported_is_explained_by_its_last_line(run_body):
    with pytest.raises(
        BuildError, match=r"^a_worker ended with status 1: .*No module named 'not_there'.*log: "
    ) as raised:
        run_body("pass", before="import not_there")
    assert "\n" not in str(raised.value)


def test_an_end_without_words_does_not_quote_the_run_before_it(run_body):
    run_body("print('words of an earlier run', file=sys.stderr)")
    with pytest.raises(BuildError, match=r"a_worker ended with status 3: it said nothing"):
        run_body("os._exit(3)")


def test_a_worker_killed_by_a_signal_is_named_with_the_callers_advice(run_body):
    with pytest.raises(BuildError, match=r"a_worker was killed \(SIGKILL\), .*memory ran out; lower section\.key"):
        run_body("os.kill(os.getpid(), signal.SIGKILL)", memory_hint="lower section.key")
    with pytest.raises(BuildError, match=r"a_worker was ended by SIGSEGV"):
        run_body("os.kill(os.getpid(), signal.SIGSEGV)", memory_hint="lower section.key")


def test_running_out_of_memory_without_being_killed_gives_the_same_advice(run_body):
    with pytest.raises(BuildError, match=r"a_worker ran out of memory \(MemoryError\); lower section\.key"):
        run_body("raise MemoryError", memory_hint="lower section.key")


def test_stray_text_on_standard_output_goes_to_the_log_and_breaks_nothing(run_body, tmp_path):
    stray = "os.write(1, b'from a C library\\n42\\n[1, 2]\\n{\"a\": 1}\\n\\xff\\n')"
    events = run_body("print('from python')\nsay('done')", before=stray)
    assert events == [{"event": "done"}]
    log_text = (tmp_path / "worker.log").read_text()
    for line in ("from a C library", "42", "[1, 2]", '{"a": 1}', "from python"):
        assert line in log_text


def test_a_listener_that_fails_ends_the_worker(run_body):
    def listener(event):
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        run_body("say('started')\nimport time\ntime.sleep(600)", listener=listener)


def test_what_a_stopped_worker_says_of_its_end_is_logged(run_body, caplog):
    def listener(event):
        raise KeyboardInterrupt

    body = """
    def stop(*_):
        raise TrainingError("step 3 is kept")
    signal.signal(signal.SIGTERM, stop)
    say('started')
    import time
    time.sleep(600)
    """
    with pytest.raises(KeyboardInterrupt):
        run_body(body, listener=listener)
    assert "step 3 is kept" in caplog.text


def test_memory_that_runs_out_on_the_cpu_gives_the_callers_advice(run_body):
    with pytest.raises(BuildError, match=r"a_worker ran out of memory \(RuntimeError\); lower section\.key"):
        run_body('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', memory_hint="lower section.key")


@pytest.mark.parametrize("each_time", ["pass", "say('word')"])
def test_a_worker_is_asked_to_stop_at_the_deadline_whether_it_speaks_or_not(run_body, each_time):
    stop = """
        import time
        def stop(*_):
            raise TrainingError('saved')
        signal.signal(signal.SIGTERM, stop)
    """
    started = time.monotonic()
    with pytest.raises(BuildError, match="saved"):
        run_body(f"while True:\n    {each_time}\n    time.sleep(0.01)", before=stop, deadline=started + 3.0)
    assert time.monotonic() - started >= 3.0


def test_a_worker_that_does_not_stop_when_it_is_asked_to_is_killed(run_body):
    deaf = "import time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with pytest.raises(BuildError, match="SIGKILL"):
        run_body("time.sleep(600)", before=deaf, deadline=time.monotonic() + 3.0, stop_seconds=0.2)


def test_what_a_worker_says_of_an_end_that_its_listener_wanted_is_nobodys_news(run_body, caplog):
    body = "try:\n    say('step')\n    time.sleep(60)\nexcept SystemExit:\n    raise TrainingError('asked to stop')"
    before = "import time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())"

    def enough(event):
        raise EnoughHeard

    def broken(event):
        raise KeyError("a fault of the listener")

    for listener, error, said in ((broken, KeyError, ["asked to stop"]), (enough, EnoughHeard, [])):
        caplog.clear()
        with pytest.raises(error):
            run_body(body, before, listener=listener)
        assert caplog.messages == said
