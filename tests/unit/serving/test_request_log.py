import fcntl
import json
import os
import threading

import pytest

from tasks.contracts.engine import import_served_module
from tasks.serving.repository import TRITON_MODELS


@pytest.fixture(scope="module")
def append_record():
    return import_served_module(TRITON_MODELS / "router", "request_log").append_record


def test_records_of_many_writers_stay_whole(append_record, tmp_path):
    log = tmp_path / "requests.jsonl"

    def write(writer):
        for number in range(50):
            append_record(log, {"writer": writer, "number": number, "answer": "é\n" * 2_000})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert sorted((record["writer"], record["number"]) for record in records) == [
        (writer, number) for writer in range(4) for number in range(50)
    ]


def test_a_writer_waits_while_another_may_still_take_back_half_a_record(append_record, tmp_path):
    log = tmp_path / "requests.jsonl"
    waiting = threading.Thread(target=append_record, args=(log, {"number": 1}))
    with log.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive()
        assert log.read_text() == ""
    waiting.join(timeout=10)

    assert json.loads(log.read_text()) == {"number": 1}


def test_half_a_record_is_taken_back(append_record, tmp_path, monkeypatch):
    log = tmp_path / "requests.jsonl"
    append_record(log, {"number": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))

    with pytest.raises(OSError, match="only 5 of"):
        append_record(log, {"number": 2})

    monkeypatch.undo()
    append_record(log, {"number": 3})
    assert [json.loads(line)["number"] for line in log.read_text().splitlines()] == [1, 3]


def test_the_log_is_readable_by_its_owner_only(append_record, tmp_path):
    append_record(tmp_path / "requests.jsonl", {"number": 1})

    assert (tmp_path / "requests.jsonl").stat().st_mode & 0o777 == 0o600
