"""The chain of the ledger: what was changed, taken out, put in or moved is found, and what a crash tore is kept."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tasks.contracts.home import Home
from tasks.contracts.jsonl import canonical_json
from tasks.registry import chain
from tasks.registry.chain import GENESIS
from tasks.registry.ledger import append_to_ledger, read_ledger, unfinished_move, verify_ledger


@pytest.fixture
def five(tmp_path):
    """A ledger of five moves."""
    home = Home(tmp_path)
    for version in range(1, 6):
        append_to_ledger(home, "promoted", "assistant", version - 1, version, f"night {version}")
    return home


def lines_of(home):
    return home.ledger.read_bytes().splitlines()


def rewrite(home, lines):
    home.ledger.write_bytes(b"".join(line + b"\n" for line in lines))


def found(home):
    """Return the numbers of the lines that break the chain."""
    return [problem.line for problem in verify_ledger(home) if problem.breaks_chain]


def in_a_process(home, code, *kept_open):
    """Run code that knows `home` and `move`, which appends one."""
    start = """
import os, signal, sys
from pathlib import Path
from tasks.contracts.home import Home
from tasks.registry.ledger import append_to_ledger
home = Home(Path(sys.argv[1]))
def move(number):
    append_to_ledger(home, "promoted", "assistant", number - 1, number, "in a process of its own")
"""
    command = [sys.executable, "-c", start + code, str(home.root)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=kept_open)


def test_each_line_carries_the_digest_of_the_bytes_of_the_line_before(five):
    lines = lines_of(five)
    expected = [GENESIS, *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]
    assert [json.loads(line)["previous"] for line in lines] == expected
    assert verify_ledger(five) == []


def test_a_ledger_that_is_not_there_has_no_problems(tmp_path):
    assert verify_ledger(Home(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda lines: [lines[0].replace(b"night 1", b"night 9"), *lines[1:]], [2]),
        (lambda lines: [*lines[:4], lines[4].replace(b"night 5", b"night 9")], [5]),
        (lambda lines: [lines[1], lines[0], *lines[2:]], [1, 2, 3]),
        (lambda lines: [*lines[:3], lines[4], lines[3]], [4, 5, 5]),
        (lambda lines: [*lines[:2], *lines[3:]], [3, 5]),
        (lambda lines: lines[1:], [1, 5]),
        (lambda lines: lines[:4], [5]),
        (lambda lines: [], [5]),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], [3, 5]),
        (lambda lines: [*lines, lines[4]], [6]),
        (lambda lines: [*lines, b'{"event":"promoted"}'], [6]),
    ],
    ids=[
        *("the first is changed", "the last is changed", "two change places", "the last two change places"),
        *("one is removed", "the first is removed", "the last is removed", "all are removed"),
        *("one is there twice", "the last is there twice", "one is added by hand"),
    ],
)
def test_a_line_that_was_changed_removed_inserted_or_moved_is_found(five, change, broken):
    rewrite(five, change(lines_of(five)))
    assert found(five) == broken


@pytest.mark.parametrize("change", [lambda lines: lines[:4], lambda lines: [*lines[:4], lines[4][:-9] + b'other"}']])
def test_going_on_does_not_cover_up_that_the_last_line_was_removed_or_changed(five, change):
    rewrite(five, change(lines_of(five)))
    for version in (6, 7):
        append_to_ledger(five, "promoted", "assistant", version - 1, version, "later")
        assert found(five), "it is still found"
    assert len(read_ledger(five)) >= 6, "and the ledger goes on being written"


def test_a_ledger_without_its_head_says_that_its_end_is_not_known(five):
    five.ledger_head.unlink()
    (problem,) = verify_ledger(five)
    assert (problem.line, problem.breaks_chain) == (5, True)
    assert "the head, which says that, is lost" in problem.what


def test_a_chain_has_a_head_from_before_its_first_line_so_that_one_without_it_is_broken(tmp_path):
    """A request whose refusal is cut off is one line."""
    home = Home(tmp_path)
    for version, broken in ((1, [1]), (2, [2])):
        append_to_ledger(home, "promoted", "assistant", version - 1, version, "night")
        content = home.ledger_head.read_bytes()
        home.ledger_head.unlink()
        assert found(home) == broken
        home.ledger_head.write_bytes(content)


def test_a_crash_between_the_first_line_and_its_head_is_no_problem(tmp_path, monkeypatch):
    home, write = Home(tmp_path), chain._write_head

    def crash(path, head):
        if head.line == 1:
            raise KeyboardInterrupt
        write(path, head)

    monkeypatch.setattr(chain, "_write_head", crash)
    with pytest.raises(KeyboardInterrupt):
        append_to_ledger(home, "promoted", "assistant", None, 1, "night")
    assert len(read_ledger(home)) == 1 and verify_ledger(home) == []
    monkeypatch.undo()
    append_to_ledger(home, "promoted", "assistant", 1, 2, "night")
    assert verify_ledger(home) == []


def test_a_decision_outside_of_the_chain_is_a_break(tmp_path):
    """Without digests and head it looks like a ledger of before there was a chain; then there were no decisions."""
    home = Home(tmp_path)
    append_to_ledger(home, "promoted", "assistant", None, 1, "night")
    append_to_ledger(home, "approved", "assistant", 1, 2, "forged")
    loose = [{key: value for key, value in each.items() if key != "previous"} for each in read_ledger(home)]
    rewrite(home, [canonical_json(each).encode() for each in loose])
    home.ledger_head.unlink()
    assert found(home) == [2]


def test_going_on_without_the_head_does_not_cover_up_that_the_end_is_not_known(five):
    """Otherwise whoever takes away the last line and the head has only to wait."""
    rewrite(five, lines_of(five)[:4])
    five.ledger_head.unlink()
    for version in (6, 7):
        append_to_ledger(five, "promoted", "assistant", version - 1, version, "later")
        (problem,) = verify_ledger(five)
        assert (problem.line, problem.since, problem.breaks_chain) == (5, 4, True)
        assert "may not follow the line before it: the head was lost" in problem.what


@pytest.mark.parametrize("line", ["-7", "1e400", "null", '"5"', "[" * 10_000])
def test_a_head_that_is_none_is_a_lost_one(five, line):
    five.ledger_head.write_text(f'{{"line":{line},"digest":"{"0" * 64}"}}')
    assert found(five) == [5]


def test_lines_of_before_there_was_a_chain_are_no_problem_and_the_chain_starts_after_them(tmp_path):
    home = Home(tmp_path)
    keys = ("time", "who", "event", "model", "from", "to", "why", "evidence")
    old = [
        canonical_json({**dict.fromkeys(keys, "x"), "model": "assistant", "from": None, "to": n}).encode()
        for n in (1, 2)
    ]
    rewrite(home, old)
    assert verify_ledger(home) == []
    append_to_ledger(home, "promoted", "assistant", 2, 3, "the first that is chained")
    append_to_ledger(home, "promoted", "assistant", 3, 4, "the second")
    assert verify_ledger(home) == []
    assert [record["to"] for record in read_ledger(home)] == [1, 2, 3, 4]
    rewrite(home, [old[0], old[1].replace(b"x", b"y"), *lines_of(home)[2:]])
    assert found(home) == [3], "the chain holds the last of them too"
    rewrite(home, [*lines_of(home)[:3], old[0]])
    assert 4 in found(home), "once there is a chain, every line is in it"


def test_a_process_that_is_killed_while_it_writes_a_line_leaves_a_torn_line_that_is_kept_and_named(five):
    whole = lines_of(five)
    append_to_ledger(five, "started", "assistant", 5, 6, "nightly")
    torn = in_a_process(
        five,
        """
write = os.write
def half(descriptor, content):
    write(descriptor, content[:len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
move(6)
""",
    )
    assert torn.wait(60) == -signal.SIGKILL, torn.stderr.read().decode()
    left = five.ledger.read_bytes()
    assert not left.endswith(b"\n")
    (problem,) = verify_ledger(five)
    assert (problem.line, problem.breaks_chain) == (7, False)
    assert unfinished_move(five, "assistant")["to"] == 6, "recovery sees the move that has no end"

    append_to_ledger(five, "undone", "assistant", 5, 6, "nightly")
    assert five.ledger.read_bytes().startswith(left + b"\n"), "what was torn stays, and nothing is glued to it"
    (problem,) = verify_ledger(five)
    assert (problem.line, problem.breaks_chain) == (7, False)
    assert "cut short while it was written" in problem.what
    assert [record["event"] for record in read_ledger(five)] == ["promoted"] * 5 + ["started", "undone"]
    rewrite(five, [*whole, *lines_of(five)[5:6], lines_of(five)[6] + b"x", *lines_of(five)[7:]])
    assert found(five) == [8], "the chain holds the torn line too"


def test_a_process_that_is_killed_between_the_line_and_the_head_leaves_a_whole_chain(tmp_path):
    home = Home(tmp_path)
    for lines, before in ((1, 1), (3, 0)):  # the first line has a head before it too
        code = f"""
replace, left = Path.replace, [None] * {before}
Path.replace = lambda *paths: replace(*paths) if left and not left.pop() else os.kill(os.getpid(), signal.SIGKILL)
move(1)
"""
        killed = in_a_process(home, code)
        assert killed.wait(60) == -signal.SIGKILL, killed.stderr.read().decode()
        assert len(lines_of(home)) == lines
        assert verify_ledger(home) == []
        append_to_ledger(home, "promoted", "assistant", 1, 2, "after the crash")
        assert verify_ledger(home) == []


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_wherever_a_line_was_torn_the_next_one_is_whole_and_chained(five, cut):
    append_to_ledger(five, "promoted", "assistant", 5, 6, "the one that is torn")
    head = json.loads(five.ledger_head.read_text())
    content = five.ledger.read_bytes()
    before = content[: content.rstrip(b"\n").rfind(b"\n") + 1]
    five.ledger.write_bytes(content[:-cut])
    five.ledger_head.write_text(
        canonical_json({"line": head["line"] - 1, "digest": hashlib.sha256(before.splitlines()[-1]).hexdigest()})
    )
    append_to_ledger(five, "promoted", "assistant", 5, 7, "the next")
    assert read_ledger(five)[-1]["to"] == 7
    assert found(five) == []
    assert len(verify_ledger(five)) == (0 if cut == 1 else 1), "without its line feed alone a line is whole"


def test_a_head_that_cannot_be_written_leaves_the_ledger_as_it_was(five, monkeypatch):
    before = five.ledger.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", refuse)
        with pytest.raises(Exception, match=r"cannot be written \(No space left on device\)"):
            append_to_ledger(five, "promoted", "assistant", 5, 6, "too much")
    assert five.ledger.read_bytes() == before
    assert verify_ledger(five) == []


def test_twenty_processes_that_append_at_once_leave_one_whole_chain(tmp_path):
    home = Home(tmp_path)
    reading, writing = os.pipe()
    processes = [
        in_a_process(home, f"os.read({reading}, 1)\nfor number in range(10): move({each}00 + number)", reading)
        for each in range(20)
    ]  # all wait until the pipe is closed
    os.close(reading)
    os.close(writing)
    assert [process.wait(120) for process in processes] == [0] * 20
    assert verify_ledger(home) == []
    moves = sorted(record["to"] for record in read_ledger(home))
    assert moves == [each * 100 + number for each in range(20) for number in range(10)]
