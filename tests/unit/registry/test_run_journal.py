"""The file that keeps what MLflow has not taken: over killed writers, torn lines and full disks."""

import signal
import subprocess
import sys

import pytest

from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.registry import journal as journals
from tasks.registry.journal import left_journals, open_journal

REGISTRY = RegistrySection(tracking_uri="http://127.0.0.1:5000")
WRITER = """
import sys
from pathlib import Path
from tasks.contracts.config import RegistrySection
from tasks.contracts.home import Home
from tasks.registry.journal import open_journal
journal = open_journal("run", RegistrySection(tracking_uri="http://127.0.0.1:5000"), Home(Path(sys.argv[1])))
number = 0
while True:
    number += 1
    journal.add({"kind": "points", "metrics": [["loss", 1.0, 1, number]]})
    if number == 2:
        journal.done(1)
    print(number, flush=True)
"""


@pytest.fixture
def place(tmp_path):
    return Home(tmp_path)


def entry(step):
    return {"kind": "points", "metrics": [["loss", 1.0, 1, step]]}


def steps_of(journal):
    return [each["metrics"][0][3] for _, each in journal.waiting(10_000)]


def test_everything_that_a_killed_writer_had_added_and_mlflow_had_not_taken_is_found_in_order(place):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(place.root)], stdout=subprocess.PIPE, text=True)
    for _ in range(50):
        added = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    (left,) = left_journals(place)
    steps = steps_of(left)
    assert steps == list(range(2, steps[-1] + 1)) and steps[-1] >= added
    assert (left.run_id, left.tracking_uri, left.has_end) == ("run", REGISTRY.tracking_uri, False)
    assert left.tried == steps[-1], "what was on its way when it was killed, nobody knows"


def test_a_line_that_was_torn_is_no_entry_and_the_next_one_is_whole(place):
    first = open_journal("run", REGISTRY, place)
    first.add(entry(1))
    first.add(entry(2))
    first.close()
    path = place.unsent / "run.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = open_journal("run", REGISTRY, place)
    assert steps_of(again) == [1]
    again.add(entry(3))
    again.close()
    (left,) = left_journals(place)
    assert steps_of(left) == [1, 3]


def test_what_a_living_process_sends_nobody_else_sends(place):
    open_journal("run", REGISTRY, place).add(entry(1))
    held = open_journal("other", REGISTRY, place)
    assert [journal.run_id for journal in left_journals(place)] == []
    held.add(entry(1))
    held.close()
    assert [journal.run_id for journal in left_journals(place)] == ["other"]


def test_the_file_goes_when_all_of_it_is_taken_and_stays_as_long_as_something_is_not(place):
    journal = open_journal("run", REGISTRY, place)
    journal.add(entry(1))
    journal.add(entry(2))
    journal.done(1)
    journal.close()
    again = open_journal("run", REGISTRY, place)
    assert steps_of(again) == [2]
    again.done(2)
    again.close()
    assert list(place.unsent.iterdir()) == []


def test_a_number_is_not_given_twice_after_everything_before_it_was_taken(place):
    journal = open_journal("run", REGISTRY, place)
    for step in (1, 2):
        journal.add(entry(step))
    journal.done(1)
    journal.close()
    again = open_journal("run", REGISTRY, place)
    again.done(2)
    again.add(entry(3))
    again.close()
    (left,) = left_journals(place)
    assert steps_of(left) == [3]


def test_a_full_disk_keeps_entries_in_memory_and_says_so_once(place, monkeypatch, caplog):
    journal = open_journal("run", REGISTRY, place)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals, "append_line", full)
    journal.add(entry(1))
    journal.add(entry(2))
    assert steps_of(journal) == [1, 2]
    assert caplog.text.count("No space left on device") == 1
    journal.close()
