import json

import pytest

from tasks.contracts.jsonl import canonical_json, digest_of
from tasks.data.rows import UnusableRow, answer_of, build_row, messages_of, prompt_of

CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def test_instruction_and_output_become_a_user_and_an_assistant_message():
    assert messages_of({"instruction": "Hello?", "output": "Yes."}) == CHAT


def test_the_input_follows_the_instruction_after_a_blank_line():
    messages = messages_of({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    assert messages[0]["content"] == "Add.\n\n1 and 2"


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_input_adds_nothing_to_the_instruction(nothing):
    assert messages_of({"instruction": "Hello?", "input": nothing, "output": "Yes."}) == CHAT


def test_both_formats_of_one_conversation_have_the_same_id():
    """The id is the digest of the messages and of nothing else."""
    from_chat = build_row(messages_of({"messages": CHAT, "other": 1}), "a", "x")
    from_instruction = build_row(messages_of({"instruction": "Hello?", "output": "Yes."}), "b", "y", {"line": 1})
    assert from_chat["id"] == from_instruction["id"] == digest_of(CHAT)


def test_a_row_has_the_canonical_keys_and_no_others():
    row = build_row(CHAT, "a.jsonl", "chat")
    assert {key: row[key] for key in ("source", "slice", "weight", "meta")} == {
        "source": "a.jsonl",
        "slice": "chat",
        "weight": 1.0,
        "meta": {},
    }
    assert set(row) == {"id", "messages", "source", "slice", "weight", "meta"}
    assert json.loads(canonical_json(row)) == row


def test_the_answer_is_the_last_message_and_the_prompt_all_before_it():
    system = {"role": "system", "content": "Be brief."}
    row = build_row(messages_of({"messages": [system, *CHAT]}), "a", "x")
    assert (prompt_of(row), answer_of(row)) == ([system, CHAT[0]], "Yes.")


def test_an_empty_answer_passes_because_cleaning_counts_it():
    assert messages_of({"instruction": "Hello?", "output": ""})[-1]["content"] == ""


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1], "expected a JSON object, found a list"),
        ({"prompt": "x"}, "expected the key messages, or the keys instruction and output"),
        ({"instruction": "x"}, "expected the key messages"),
        ({"instruction": 3, "output": "y"}, "instruction must be text, found a number"),
        ({"instruction": "x", "output": None}, "output must be text, found null"),
        ({"instruction": "x", "input": [], "output": "y"}, "input must be text, found a list"),
        ({"instruction": " \n", "output": "y"}, "instruction is blank"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": "x"}, "messages must be a list"),
        ({"messages": ["x"]}, "message 1 must be an object, found text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "message 1 has the role 'tool'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"message 1 has the role \['user'\]"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "the content of message 1 must be text, found a list"),
        ({"messages": [{"role": "user", "content": " "}, CHAT[1]]}, r"message 1 \(user\) is blank"),
        ({"messages": CHAT[:1]}, "the last message must be the assistant's, found user"),
        ({"messages": CHAT[1:]}, "there is no user message"),
        ({"messages": [CHAT[0], {"role": "system", "content": "x"}, CHAT[1]]}, "a system message may only come first"),
        ({"instruction": "x", "output": "\ud83d"}, "message 2 holds half of a surrogate pair"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_reason(record, reason):
    with pytest.raises(UnusableRow, match=f"^{reason}"):
        messages_of(record)
