import json

import pytest

from tasks.contracts.engine import GOLDEN_REQUEST_ID
from tasks.contracts.errors import DataError
from tasks.contracts.source_config import ServedLogSource


def request(name, **more):
    messages = [{"role": "user", "content": f"question {name}"}]
    return {"id": name, "served_by": "assistant-v1", "messages": messages, "answer": f"answer {name}", **more}


@pytest.fixture
def logs(tmp_path):
    """Write both logs (objects become JSON lines); return a source that names them."""

    def write(requests, feedback, **settings):
        for name, records in (("requests", requests), ("feedback", feedback)):
            lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
            (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        return ServedLogSource(
            requests_path=str(tmp_path / "requests.jsonl"), feedback_path=str(tmp_path / "feedback.jsonl"), **settings
        )

    return write


def test_a_corrected_request_is_a_row_and_what_nobody_corrected_is_none(logs, read):
    source = logs([request("a"), request("b"), request("c")], [{"id": "b", "correction": "better", "rating": "bad"}])
    (row,) = read(source).rows
    assert row["messages"] == [
        {"role": "user", "content": "question b"},
        {"role": "assistant", "content": "better"},
    ]
    assert (row["source"], row["slice"]) == ("served-log", "served")
    assert row["meta"] == {"request_id": "b", "served_by": "assistant-v1", "feedback": "corrected"}


@pytest.mark.parametrize(("rated_good", "answers"), [(False, []), (True, ["answer a"])])
def test_an_answer_that_was_rated_good_is_a_row_only_if_the_settings_say_so(logs, read, rated_good, answers):
    feedback = [{"id": "a", "rating": "good"}, {"id": "b", "rating": "bad"}, {"id": "failed", "rating": "good"}]
    failed = request("failed")
    del failed["answer"]
    source = logs([request("a"), request("b"), failed], feedback, rated_good=rated_good)
    assert read(source).answers == answers


def test_the_last_feedback_and_the_last_request_of_an_id_stand(logs, read):
    requests = [request("a"), request("a", messages=[{"role": "user", "content": "again"}])]
    feedback = [{"id": "a", "correction": "first"}, {"id": "a", "correction": "last"}]
    (row,) = read(logs(requests, feedback)).rows
    assert [message["content"] for message in row["messages"]] == ["again", "last"]


def test_golden_prompts_are_nobodys_requests(logs, read):
    source = logs([request(GOLDEN_REQUEST_ID)], [{"id": GOLDEN_REQUEST_ID, "correction": "x"}])
    assert read(source).results == []


def test_malformed_lines_of_either_log_are_set_aside_with_what_is_wrong(logs, read):
    requests = [
        "{broken",
        "",
        '"text"',
        {"messages": [], "output": "x", "instruction": "y"},
        request("a"),
        request("b", messages="x"),
        request("c", messages=[]),
    ]
    feedback = [
        {"id": "a", "correction": "better"},
        {"id": "c", "correction": "better"},
        {"id": "gone", "correction": "x"},
        {"id": 7, "correction": "x"},
        {"id": "a"},
        {"id": "a", "rating": "great"},
        {"id": "a", "correction": 3},
        '{"id": "a", "correction": "\\ud83d"}',
        "[" * 100_000,
    ]
    reading = read(logs(requests, feedback))
    assert reading.answers == ["better"]
    details = " | ".join(rejection.detail for rejection in reading.rejections)
    for detail in (
        "request at byte 0: not JSON",
        "expected an object with an id",
        "messages must be a list, found text",
        "there is no user message",
        "expected an object with the id of a request",
        "expected a correction or a rating",
        "rating is 'great'; expected good or bad",
        "correction must be text, found a number",
        "correction holds half of a surrogate pair",
        "recursion",
    ):
        assert detail in details
    assert len(reading.rejections) == 11


def test_feedback_that_comes_later_is_found_and_nothing_is_read_twice(logs, read):
    first = read(logs([request("a"), request("b")], [{"id": "a", "correction": "1"}]))
    source = logs([request("a"), request("b")], [{"id": "a", "correction": "1"}, {"id": "b", "correction": "2"}])
    second = read(source)
    assert (first.answers, second.answers) == (["1"], ["1", "2"])
    assert first.opened.digest != second.opened.digest == read(source).opened.digest


def test_logs_that_have_not_grown_are_not_joined_again(logs, read, monkeypatch):
    source = logs([request("a")], [{"id": "a", "correction": "1"}])
    first = read(source)
    monkeypatch.setattr("tasks.data.sources.served_log._records", None)
    assert read(source).rows == first.rows


def test_the_logs_of_the_served_model_are_read_where_none_are_named_and_may_not_exist_yet(tmp_path, logs, read):
    source = ServedLogSource()
    places = {"request_log": tmp_path / "requests.jsonl", "feedback_log": tmp_path / "feedback.jsonl"}
    assert read(source, **places).results == []
    logs([request("a")], [{"id": "a", "correction": "1"}])
    assert read(source, **places).answers == ["1"]


@pytest.mark.parametrize("setting", ["requests_path", "feedback_path"])
def test_a_named_log_that_is_missing_is_one_sentence(tmp_path, logs, read, setting):
    source = logs([], []).model_copy(update={setting: str(tmp_path / "none.jsonl")})
    with pytest.raises(
        DataError, match=rf"^data\.sources has {setting} '.*none\.jsonl', which does not exist; expected"
    ):
        read(source)
