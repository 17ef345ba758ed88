import json
import time
import tracemalloc

import pytest

from tasks.contracts.config import MonitorConfig
from tasks.contracts.engine import GOLDEN_REQUEST_ID
from tasks.contracts.errors import DataError
from tasks.monitoring.requests import read_recent_requests, read_training_prompts, user_text


def logged(text, moment="2026-03-01T12:00:00.000+00:00", **more):
    """A line of the router's request log."""
    return {
        "time": moment,
        "id": "7",
        "served_by": "assistant-v1",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}],
        "answer": "an answer",
        "latency_ms": 12.5,
        **more,
    }


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def texts(window):
    return [request.text for request in window.requests]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ask"}]}, "ask"),
        (
            {
                "messages": [
                    {"role": "user", "content": "one"},
                    {"role": "assistant", "content": "said"},
                    {"role": "user", "content": "two"},
                ]
            },
            "one\n\ntwo",
        ),
        ({"text_input": "ask"}, "ask"),
        ({"instruction": "do", "input": "this", "output": "done"}, "do\n\nthis"),
        ({"instruction": "do"}, "do"),
        ({"instruction": "do", "input": ""}, "do"),
        ({"text_input": "half \ud800 pair"}, "half ? pair"),
        ({"messages": [{"role": "assistant", "content": "said"}]}, None),
        ({"messages": []}, None),
        ({"messages": "ask"}, None),
        ({"messages": [{"role": "user", "content": 5}]}, None),
        ({"text_input": " "}, None),
        ({"text_input": 5}, None),
        ({"answer": "x"}, None),
        (["ask"], None),
        ("ask", None),
    ],
)
def test_only_the_user_text_counts(record, text):
    assert user_text(record) == text


def test_the_most_recent_requests_of_the_log_come_oldest_first(home):
    write_lines(home.request_log("assistant"), [logged(f"question {n}") for n in range(25)])
    window = read_recent_requests(MonitorConfig(window_requests=10, min_requests=10), home)
    assert texts(window) == [f"question {n}" for n in range(15, 25)]
    assert window.malformed_lines == 0


def test_a_request_that_failed_counts_because_the_user_asked(home):
    failed = logged("question", error="no champion yet")
    del failed["answer"]
    write_lines(home.request_log("assistant"), [failed])
    assert texts(read_recent_requests(MonitorConfig(), home)) == ["question"]


def test_golden_prompts_of_a_roll_out_are_not_what_users_ask(home):
    lines = [logged("asked"), logged("checked", id=GOLDEN_REQUEST_ID), logged("asked too")]
    write_lines(home.request_log("assistant"), lines)
    window = read_recent_requests(MonitorConfig(), home)
    assert (texts(window), window.malformed_lines) == (["asked", "asked too"], 0)


def test_malformed_lines_are_counted_and_passed_over(home):
    log = home.request_log("assistant")
    log.parent.mkdir(parents=True)
    lines = [
        json.dumps(logged("first")).encode(),
        b"not json",
        b'{"time": 1, "messages": []}',
        b"\xff\xfe\xfa",
        b"[" * 100_000,
        b"",
        json.dumps(logged("last")).encode(),
        b'{"messages": [{"role": "user", "conte',
    ]
    log.write_bytes(b"\n".join(lines))
    window = read_recent_requests(MonitorConfig(), home)
    assert texts(window) == ["first", "last"]
    assert window.malformed_lines == 5


def test_the_end_of_a_log_with_100_000_lines_is_read_in_little_memory_and_time(home):
    log = home.request_log("assistant")
    log.parent.mkdir(parents=True)
    filler = json.dumps(logged("filler " * 30))
    with log.open("w", encoding="utf-8") as file:
        file.writelines(f"{filler}\n" for _ in range(99_990))
        file.writelines(json.dumps(logged(f"question {n}")) + "\n" for n in range(10))
    assert log.stat().st_size > 30_000_000
    tracemalloc.start()
    started = time.perf_counter()
    window = read_recent_requests(MonitorConfig(window_requests=10, min_requests=10), home)
    seconds, (_, peak_bytes) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts(window) == [f"question {n}" for n in range(10)]
    assert peak_bytes < 2_000_000
    assert seconds < 1


def test_lines_longer_than_a_block_and_letters_across_blocks_are_read_whole(tmp_path, home):
    long = ["é" * 70_001, "漢" * 50_000, "x"]
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(json.dumps({"text_input": text}, ensure_ascii=False) for text in long), encoding="utf-8")
    assert texts(read_recent_requests(MonitorConfig(requests_path=str(file)), home)) == long


def test_a_line_of_more_than_4_mib_is_malformed_and_not_held_in_memory(tmp_path, home):
    file = tmp_path / "asked.jsonl"
    enormous = json.dumps({"text_input": "x" * 20_000_000})
    file.write_text(f'{{"text_input": "before"}}\n{enormous}\n{{"text_input": "after"}}\n', encoding="utf-8")
    del enormous
    tracemalloc.start()
    window = read_recent_requests(MonitorConfig(requests_path=str(file)), home)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts(window) == ["before", "after"]
    assert window.malformed_lines == 1
    assert peak_bytes < 12_000_000


def test_a_log_that_does_not_exist_yet_is_empty(home):
    assert read_recent_requests(MonitorConfig(), home).requests == ()


def test_a_named_file_that_is_missing_is_an_error_that_names_the_key(home):
    with pytest.raises(
        DataError, match=r"requests_path is '/nowhere/asked.jsonl', which cannot be read \(no such file"
    ):
        read_recent_requests(MonitorConfig(requests_path="/nowhere/asked.jsonl"), home)


def test_a_named_directory_is_an_error_that_names_the_key(tmp_path, home):
    with pytest.raises(DataError, match="requests_path is "):
        read_recent_requests(MonitorConfig(requests_path=str(tmp_path)), home)


def test_times_are_read_as_written_and_otherwise_the_files_own_time_counts(tmp_path, home):
    file = tmp_path / "asked.jsonl"
    moments = [
        "2026-03-01T12:00:00.500+00:00",
        "2026-03-01T13:00:00.500+01:00",
        "2026-03-01T12:00:00.500",
        1772366400.5,
    ]
    write_lines(file, [{"text_input": "a", "time": moment} for moment in moments] + [{"text_input": "a"}] * 2)
    window = read_recent_requests(MonitorConfig(requests_path=str(file)), home)
    file_time = file.stat().st_mtime
    assert [request.time_seconds for request in window.requests] == [1772366400.5] * 4 + [file_time] * 2


def test_a_clock_ahead_in_the_log_does_not_put_the_window_into_the_future(home):
    write_lines(home.request_log("assistant"), [logged("question", "2999-01-01T00:00:00+00:00")])
    assert read_recent_requests(MonitorConfig(), home).last_time_seconds <= time.time()


def test_training_prompts_are_read_by_the_same_rule(tmp_path):
    row = {"id": "0", "source": "s", "slice": "default", "weight": 1.0, "meta": {}}
    messages = [{"role": "user", "content": "do\n\nthis"}, {"role": "assistant", "content": "done"}]
    write_lines(tmp_path / "train.jsonl", [{**row, "messages": messages}] * 2)
    assert read_training_prompts(tmp_path) == ["do\n\nthis"] * 2


def test_missing_training_rows_are_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl cannot be read .* or retrain"):
        read_training_prompts(tmp_path)
