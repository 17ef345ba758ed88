import pytest
from pydantic import ValidationError

from tasks.contracts.source_config import SourceSection
from tasks.data.formats import row_builder
from tasks.data.rows import UnusableRow

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
WORSE = {"role": "assistant", "content": "No idea."}
SYSTEM = {"role": "system", "content": "Be brief."}


def build(record, **settings):
    return row_builder(SourceSection(**settings), "rows.jsonl")(record)


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": [SYSTEM, USER, {**ANSWER, "name": "x"}]}, [SYSTEM, USER, ANSWER]),
        ({"instruction": "Why?", "output": "Because."}, [USER, ANSWER]),
        ({"instruction": "Why?", "input": "", "output": "Because."}, [USER, ANSWER]),
        ({"instruction": "Why", "input": "?", "output": "Because."}, [{**USER, "content": "Why\n\n?"}, ANSWER]),
        ({"prompt": "Why?", "completion": "Because."}, [USER, ANSWER]),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
            [USER, ANSWER],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "user", "value": "Why?"},
                    {"from": "assistant", "value": "Because."},
                ]
            },
            [SYSTEM, USER, ANSWER],
        ),
        ({"messages": None, "instruction": "Why?", "output": "Because.", "system": "ignored"}, [USER, ANSWER]),
        ({"instruction": "Why?", "output": ""}, [USER, {**ANSWER, "content": ""}]),
    ],
)
def test_the_format_is_known_by_the_fields_of_each_record(record, messages):
    row = build(record)
    assert row["messages"] == messages
    assert (row["source"], row["slice"], "rejected" in row) == ("rows.jsonl", "default", False)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
        {"chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
        {"prompt": "Why?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": "No idea."},
    ],
)
def test_a_preference_pair_is_a_row_with_the_rejected_answer_however_it_repeats_the_prompt(record):
    row = build(record)
    assert row["messages"] == [USER, ANSWER]
    assert row["rejected"] == "No idea."


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "How?", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, "prompt and the conversation"),
        ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "How?"}, WORSE]}, "two different prompts"),
        ({"chosen": "Because.", "rejected": "No."}, "the field prompt is missing"),
        ({"prompt": "Why?", "chosen": "Same.", "rejected": "Same."}, "the same text"),
        ({"prompt": "Why?", "chosen": [USER], "rejected": "No."}, "the last message of chosen must be the assistant's"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt is blank"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt must be text or a list of messages, found a number"),
        ({"prompt": [SYSTEM], "chosen": "a", "rejected": "b"}, "there is no user message"),
    ],
)
def test_a_pair_that_is_none_is_refused(record, reason):
    with pytest.raises(UnusableRow, match=reason):
        build(record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "expected a JSON object, found text"),
        ({}, "expected the fields messages, .*; found none"),
        ({"question": 1, "answer": 2}, "; found 'question', 'answer'"),
        ({"messages": []}, "a list with at least"),
        ({"messages": ["x"]}, "message 1 must be an object, found text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "has the role 'tool', expected one of system"),
        ({"messages": [{"role": {}, "content": "x"}]}, "has the role an object"),
        ({"messages": [USER]}, "the last message must be the assistant's, found user"),
        ({"messages": [SYSTEM, ANSWER]}, "there is no user message"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "a system message may only come first"),
        ({"messages": [{**USER, "content": " "}, ANSWER]}, r"message 1 \(user\) is blank"),
        ({"messages": [USER, {**ANSWER, "content": None}]}, "the content of message 2 must be text, found null"),
        ({"messages": [USER, {**ANSWER, "content": "\ud83d"}]}, "message 2 holds half of a surrogate pair"),
        ({"messages": [USER, {**ANSWER, "content": "a\0b"}]}, "message 2 holds a NUL character"),
        ({"instruction": " ", "output": "x"}, "instruction is blank"),
        ({"instruction": "a\0", "output": "x"}, "instruction holds a NUL character"),
        ({"instruction": "a", "output": "\udc00"}, "output holds half of a surrogate pair"),
        ({"instruction": "a", "input": 3, "output": "x"}, "input must be text, found a number"),
        ({"instruction": "a", "output": b"x"}, "output must be text, found bytes"),
        ({"prompt": "", "completion": "x"}, "prompt is blank"),
        ({"conversations": "x"}, "conversations must be a list, found text"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "message 1 is from 'bot', expected one of human"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "is from"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "the last message must be the assistant's"),
    ],
)
def test_what_no_row_may_be_is_refused_with_the_reason(record, reason):
    with pytest.raises(UnusableRow, match=reason):
        build(record)


def test_other_control_characters_are_text():
    assert build({"instruction": "a\x1b[0m\x07\t\r\n", "output": "x"})["messages"][0]["content"] == "a\x1b[0m\x07\t\r\n"


def test_a_named_format_is_read_where_other_fields_would_say_otherwise():
    record = {"instruction": "x", "output": "y", "prompt": "Why?", "completion": "Because."}
    assert build(record, row_format="prompt_completion")["messages"] == [USER, ANSWER]
    with pytest.raises(UnusableRow, match="the field conversations is missing"):
        build(record, row_format="sharegpt")


def test_columns_with_other_names_are_mapped_by_path_joined_and_nested():
    record = {
        "department": "Cardiology",
        "title": "Pain",
        "ask": "What now?",
        "answers": [{"text": "Wait."}, {"text": "Call a doctor."}],
        "system": "of another meaning",
    }
    columns = {"system": "department", "instruction": "title + ask", "output": "answers.1.text"}
    row = build(record, columns=columns, slice_column="department")
    assert row["messages"] == [
        {"role": "system", "content": "Cardiology"},
        {"role": "user", "content": "Pain\nWhat now?"},
        {"role": "assistant", "content": "Call a doctor."},
    ]
    assert row["slice"] == "Cardiology"


def test_a_field_whose_name_has_dots_goes_before_a_path():
    assert build({"q": "Why?", "a.b": "Because.", "a": {"b": "no"}}, columns={"instruction": "q", "output": "a.b"})[
        "messages"
    ] == [USER, ANSWER]


def test_parts_of_a_joined_field_that_are_missing_or_blank_are_left_out_and_all_of_them_are_an_error():
    columns = {"instruction": "title + ask", "output": "answer"}
    assert build({"title": None, "ask": "Why?", "answer": "Because."}, columns=columns)["messages"] == [USER, ANSWER]
    with pytest.raises(UnusableRow, match="the field instruction is missing"):
        build({"title": " ", "answer": "Because."}, columns=columns)
    with pytest.raises(UnusableRow, match="ask must be text, found a list"):
        build({"title": "x", "ask": [], "answer": "Because."}, columns=columns)


@pytest.mark.parametrize("path", ["answers.2", "answers.x", "answers.-1", "answers.0.text.more", "answers.9999999"])
def test_a_path_that_leads_nowhere_is_a_missing_field(path):
    with pytest.raises(UnusableRow, match="the field output is missing"):
        build({"q": "x", "answers": [{"text": "y"}]}, columns={"instruction": "q", "output": path})


def test_the_mapped_fields_tell_the_format_even_if_the_record_has_fields_of_another():
    record = {"messages": [SYSTEM], "q": "Why?", "a": "Because."}
    assert build(record, columns={"prompt": "q", "completion": "a"})["messages"] == [USER, ANSWER]


@pytest.mark.parametrize(
    ("value", "name"), [("a", "a"), (7, "7"), (True, "True"), (None, "default"), ("", "default"), ("  ", "default")]
)
def test_the_slice_column_names_the_slice_of_each_row(value, name):
    assert build({"instruction": "x", "output": "y", "s": value}, slice_column="s")["slice"] == name


@pytest.mark.parametrize("value", ["x" * 201, ["a"], "a\0", "\ud83d"])
def test_a_slice_that_is_no_name_is_refused(value):
    with pytest.raises(UnusableRow):
        build({"instruction": "x", "output": "y", "s": value}, slice_column="s")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"columns": {"question": "q"}}, "expected those of one format"),
        ({"columns": {"instruction": "q", "completion": "a"}}, "expected those of one format"),
        ({"columns": {"prompt": "q"}, "row_format": "messages"}, "messages: messages"),
        ({"columns": {"instruction": ""}}, "expected a path"),
        ({"columns": {"instruction": "a +  + b"}}, "expected a path"),
    ],
)
def test_a_mapping_to_fields_of_no_format_is_a_config_error(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        SourceSection(**settings)
