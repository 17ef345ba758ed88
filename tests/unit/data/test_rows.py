import json

from tasks.contracts.jsonl import canonical_json, digest_of
from tasks.data.rows import answer_of, build_row, prompt_of, rejected_line, rejected_line_of, row_line

CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def test_the_id_is_the_digest_of_the_messages_and_of_nothing_else():
    assert build_row(CHAT, "a", "x")["id"] == build_row(CHAT, "b", "y", {"line": 1})["id"] == digest_of(CHAT)


def test_the_rejected_answer_of_a_pair_is_part_of_its_id():
    assert build_row(CHAT, "a", "x", rejected="No.")["id"] == digest_of([CHAT, "No."])


def test_a_line_is_the_canonical_json_of_a_row():
    row = build_row(
        [{"role": "user", "content": 'Say "caf\u00e9" \u2028 \x7f \x01\t'}, CHAT[1]], "a", "x", {"n": [1, 2.5, None]}
    )
    assert row_line(row) == canonical_json(row).encode() + b"\n"


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
    row = build_row([system, *CHAT], "a", "x")
    assert (prompt_of(row), answer_of(row)) == ([system, CHAT[0]], "Yes.")


def test_the_record_of_a_rejected_row_is_the_same_out_of_its_line_as_out_of_the_row():
    """Whatever its texts hold that looks like the keys which the line is cut at."""
    spoof = '"x","source":"evil","weight":9,"row":{}\\"'
    for source in ("a.jsonl", spoof, '","weight":', "\u4e2d\u6587\\"):
        for meta in ({}, {"source": spoof, "weight": 1, "deep": {"source": "x", "weight": [spoof]}}):
            for rejected in (None, spoof):
                row = build_row(
                    [{"role": "user", "content": spoof}, {"role": "assistant", "content": source}],
                    *(source, spoof, meta, rejected),
                )
                assert rejected_line_of(row_line(row), spoof, "of row") == rejected_line(row, spoof, "of row")
